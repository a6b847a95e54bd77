"""The authors' RandAugment against recordings of their own code, timm's beside timm itself."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest
from PIL import Image

from shared import GOLDEN
from vitral.images import augment, randaugment
from vitral.images.randaugment import (
    BIG_VISION,
    TIMM,
    apply_big_vision,
    apply_timm,
    big_vision,
    timm,
)
from vitral.images.seeds import uniform

RECORDED = GOLDEN / "randaugment_ops.npz"
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
FILL = (124, 116, 104)
GROWING = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")
MAGNITUDES = (0, 1, 2, 5, 10, 15, 20, 30)


def apply(name: str, image: np.ndarray, magnitude: float, *, negate: bool = False, **settings):
    """One operation of the authors' code, by the magnitude that their configs state."""
    level = -magnitude / 10 if negate else magnitude / 10
    return apply_big_vision(name, image, level, **settings)


@pytest.mark.parametrize("name", [name for name in BIG_VISION if name != "Cutout"])
def test_every_operation_is_the_recorded_one(name):
    if not RECORDED.exists():
        pytest.skip(f"the recorded operations of the authors' code are not at {RECORDED}")
    with np.load(RECORDED) as recorded:
        for magnitude in (0, 2, 10, 15, 20):
            made = apply(name, recorded["im"], magnitude)
            assert np.array_equal(made, recorded[f"{name}_{magnitude}"]), magnitude


@pytest.mark.parametrize("name", BIG_VISION)
def test_every_operation_gives_a_new_picture_of_the_same_kind(name):
    before = IMAGE.copy()
    for magnitude, negate in itertools.product(MAGNITUDES, (False, True)):
        made = apply(name, IMAGE, magnitude, negate=negate)
        assert made.shape == IMAGE.shape and made.dtype == np.uint8
    assert np.array_equal(IMAGE, before)


@pytest.mark.parametrize("value", [0, 77, 255])
@pytest.mark.parametrize("name", BIG_VISION)
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
    counts = dict.fromkeys(BIG_VISION, 0)
    for seed in range(1600):
        counts[BIG_VISION[int(16 * uniform(seed, "randaugment", 4)[0])]] += 1
        if seed < 200:
            assert not np.array_equal(big_vision(image, 1, 7, seed), image)
    assert min(counts.values()) > 60 and max(counts.values()) < 145


def test_layers_follow_one_another(monkeypatch):
    numbers = [0.0, 0.9, 0.0, 0.0, 2.5 / 16, 0.9, 0.0, 0.0]
    monkeypatch.setattr(randaugment, "uniform", lambda *_: numbers)
    twice = big_vision(IMAGE, 2, 10, 0)
    assert np.array_equal(twice, apply("Invert", apply("AutoContrast", IMAGE, 10), 10))


def test_an_unknown_name():
    with pytest.raises(KeyError, match="'Shear'"):
        apply("Shear", IMAGE, 1)


def theirs(name: str, level: float, *, cubic: bool, monkeypatch) -> np.ndarray:
    augment.transforms()  # makes torchvision importable where its wheel was built for another torch
    pytest.importorskip("timm", reason="timm is an oracle of the dev extra")
    module = importlib.import_module("timm.data.auto_augment")
    monkeypatch.setattr(module.random, "random", lambda: 1.0 if level < 0 else 0.0)
    name += "Increasing" if name in GROWING else ""
    name += "Rel" if name.startswith("Translate") else ""
    kind = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    settings = {"img_mean": FILL, "interpolation": kind}
    operation = module.AugmentOp(name, prob=1.0, magnitude=10 * abs(level), hparams=settings)
    return np.asarray(operation(Image.fromarray(IMAGE)))


@pytest.mark.parametrize("cubic", [False, True])
@pytest.mark.parametrize("name", TIMM)
def test_every_operation_is_timms(name, cubic, monkeypatch):
    # At full strength timm's Posterize asks Pillow for 0 bits, which Pillow 13 refuses.
    full = () if name == "Posterize" else (1.0, -1.0)
    for level in (0.0, 0.25, 0.875, -0.375, *full):
        ours = apply_timm(name, IMAGE, level, fill=FILL, cubic=cubic)
        assert np.array_equal(ours, theirs(name, level, cubic=cubic, monkeypatch=monkeypatch))


def test_timm_leaves_half_of_the_operations_out_and_spreads_magnitudes(monkeypatch):
    magnitudes, same = [], 0
    for seed in range(600):
        numbers = uniform(seed, "randaugment", 6)
        numbers[0] = TIMM.index("TranslateX") / len(TIMM)
        monkeypatch.setattr(randaugment, "uniform", lambda *_, given=numbers: given)
        made = timm(IMAGE, 1, 5, FILL, seed)
        if np.array_equal(made, IMAGE):
            same += 1
        else:
            grey = (made == FILL).all((0, 2))
            magnitudes.append(10 * grey.sum() / (0.45 * 50))
    assert 250 < same < 350
    assert abs(np.mean(magnitudes) - 5) < 0.3 and 0.3 < np.std(magnitudes) < 0.7


def test_the_strongest_posterize_is_still_a_picture():
    assert set(np.unique(apply_timm("Posterize", IMAGE, 1.0))) == {0, 128}


def test_timm_has_fifteen_of_the_sixteen():
    assert len(set(TIMM)) == 15 and {*BIG_VISION} - {*TIMM} == {"Cutout"}
    with pytest.raises(KeyError):
        apply_timm("Cutout", IMAGE, 0.5)
