"""DeiT's RandAugment beside timm's own operations."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
from PIL import Image

from vitral.images import augment
from vitral.images.deit import NAMES, NUMBERS_PER_LAYER, apply, randaugment
from vitral.images.seeds import uniform

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 52, 3), np.uint8)
FILL = (124, 116, 104)
GROWING = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")


def theirs(name: str, level: float, *, cubic: bool, monkeypatch) -> np.ndarray:
    augment.transforms()  # makes torchvision importable where its wheel was built for another torch
    pytest.importorskip("timm", reason="timm is an oracle of the dev extra")
    module = importlib.import_module("timm.data.auto_augment")
    monkeypatch.setattr(module.random, "random", lambda: 1.0 if level < 0 else 0.0)
    name += "Increasing" * (name in GROWING) + "Rel" * name.startswith("Translate")
    kind = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    settings = {"img_mean": FILL, "interpolation": kind}
    operation = module.AugmentOp(name, prob=1.0, magnitude=10 * abs(level), hparams=settings)
    return np.asarray(operation(Image.fromarray(IMAGE)))


@pytest.mark.parametrize("cubic", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_every_operation_is_timms(name, cubic, monkeypatch):
    # At full strength timm's Posterize asks Pillow for 0 bits, which Pillow 13 refuses.
    full = () if name == "Posterize" else (1.0, -1.0)
    for level in (0.0, 0.25, 0.875, -0.375, *full):
        ours = np.asarray(apply(name, Image.fromarray(IMAGE), level, fill=FILL, cubic=cubic))
        assert np.array_equal(ours, theirs(name, level, cubic=cubic, monkeypatch=monkeypatch))


def test_half_of_the_operations_are_left_out_and_magnitudes_spread():
    magnitudes, same = [], 0
    for seed in range(600):
        numbers = uniform(seed, "randaugment", NUMBERS_PER_LAYER)
        numbers[0] = NAMES.index("TranslateX") / len(NAMES)
        made = randaugment(np.ascontiguousarray(IMAGE), 1, 5, FILL, iter(numbers))
        if np.array_equal(made, IMAGE):
            same += 1
        else:
            grey = (made == FILL).all((0, 2))
            magnitudes.append(10 * grey.sum() / (0.45 * 52))
    assert 250 < same < 350
    assert abs(np.mean(magnitudes) - 5) < 0.3 and 0.3 < np.std(magnitudes) < 0.7


def test_the_strongest_posterize_is_still_a_picture():
    assert set(np.unique(apply("Posterize", Image.fromarray(IMAGE), 1.0))) == {0, 128}


def test_names_of_the_table_are_all_and_nothing_else():
    assert len(set(NAMES)) == 15
    with pytest.raises(KeyError):
        apply("Cutout", Image.fromarray(IMAGE), 0.5)
