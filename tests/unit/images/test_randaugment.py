"""The authors' RandAugment against recordings of their own code."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from vitral.images.randaugment import NAMES, NUMBERS_PER_LAYER, apply, randaugment
from vitral.images.seeds import uniform

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "randaugment_ops.npz"
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
MAGNITUDES = (0, 1, 2, 5, 10, 15, 20, 30)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Cutout"])
def test_every_operation_is_the_recorded_one(name):
    if not GOLDEN.exists():
        pytest.skip(f"the recorded operations of the authors' code are not at {GOLDEN}")
    with np.load(GOLDEN) as recorded:
        for magnitude in (0, 2, 10, 15, 20):
            made = apply(name, recorded["im"], magnitude)
            assert np.array_equal(made, recorded[f"{name}_{magnitude}"]), magnitude


@pytest.mark.parametrize("name", NAMES)
def test_every_operation_gives_a_new_picture_of_the_same_kind(name):
    before = IMAGE.copy()
    for magnitude, negate in itertools.product(MAGNITUDES, (False, True)):
        made = apply(name, IMAGE, magnitude, negate=negate)
        assert made.shape == IMAGE.shape and made.dtype == np.uint8
    assert np.array_equal(IMAGE, before)


@pytest.mark.parametrize("value", [0, 77, 255])
@pytest.mark.parametrize("name", NAMES)
def test_one_colour_is_no_trap(name, value):
    plain = np.full((9, 11, 3), value, np.uint8)
    for magnitude in MAGNITUDES:
        assert apply(name, plain, magnitude).shape == plain.shape
    if name in ("AutoContrast", "Equalize", "Sharpness", "Color"):
        assert np.abs(apply(name, plain, 10).astype(int) - value).max() <= 1


@pytest.mark.parametrize("name", ["ShearX", "ShearY", "TranslateX", "TranslateY"])
def test_negated_is_the_other_direction(name):
    turned = IMAGE[::-1, ::-1]
    back = apply(name, turned, 2)[::-1, ::-1]
    if name.startswith("Translate"):
        assert np.array_equal(apply(name, IMAGE, 2, negate=True), back)
    assert not np.array_equal(apply(name, IMAGE, 2, negate=True), apply(name, IMAGE, 2))


def test_cutout_is_a_grey_square_about_its_centre():
    white = np.full((100, 120, 3), 255, np.uint8)
    ys, xs = np.nonzero((apply("Cutout", white, 5) == 128).all(-1))
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (30, 69, 40, 79)  # half of it is 40 * 5 / 10
    corner = apply("Cutout", white, 5, centre=(0.0, 0.0)) == 128
    assert corner[:20, :20].all() and corner.sum() == 20 * 20 * 3


def test_known_oddities():
    assert not np.array_equal(apply("Invert", IMAGE, 0), IMAGE)  # magnitude 0 is no "off"
    assert np.array_equal(apply("Solarize", IMAGE, 10), 255 - IMAGE)
    assert np.array_equal(apply("Solarize", IMAGE, 20), 255 - IMAGE)
    assert np.array_equal(apply("Posterize", IMAGE, 0), apply("Posterize", IMAGE, 2.5))
    assert np.array_equal(apply("Posterize", IMAGE, 20), IMAGE)
    grey = 40 * 50 // 256
    made = apply("Contrast", IMAGE, 0).astype(float)  # a tenth of the picture, the rest one grey
    assert np.abs(made - (grey + 0.1 * (IMAGE - float(grey)))).max() <= 1


def test_operations_come_evenly_with_replacement_and_always():
    image = (IMAGE * 0.8 + 20).astype(np.uint8)  # AutoContrast has something to do
    counts = dict.fromkeys(NAMES, 0)
    for seed in range(1600):
        numbers = uniform(seed, "randaugment", NUMBERS_PER_LAYER)
        counts[NAMES[int(16 * numbers[0])]] += 1
        if seed < 200:
            made = randaugment(image, 1, 7, iter(numbers))
            assert not np.array_equal(made, image)
    assert min(counts.values()) > 60 and max(counts.values()) < 145


def test_layers_follow_one_another():
    numbers = [0.0, 0.9, 0.0, 0.0, 2.5 / 16, 0.9, 0.0, 0.0]
    twice = randaugment(IMAGE, 2, 10, iter(numbers))
    assert np.array_equal(twice, apply("Invert", apply("AutoContrast", IMAGE, 10), 10))


def test_an_unknown_name():
    with pytest.raises(ValueError, match="'Shear'"):
        apply("Shear", IMAGE, 1)
