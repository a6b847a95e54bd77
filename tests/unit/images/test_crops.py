"""Rectangles: inside, within their limits, and distributed as in the library they come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shared import GOLDEN
from vitral.images.augment import transforms
from vitral.images.crops import rectangle
from vitral.specs.augment import Augment

RECORDED = GOLDEN / "tf_preproc.npz"
TF = Augment(flavour="big_vision", crop_scale=(0.05, 1.0))
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


def many(size: tuple[int, int], augment: Augment, count: int = 8000) -> np.ndarray:
    return np.array([rectangle(size, augment, seed) for seed in range(count)])


@pytest.mark.parametrize("flavour", ["torchvision", "timm", "big_vision"])
@pytest.mark.parametrize("size", [(60, 90), (90, 60), (32, 32), (1, 1), (3, 400), (400, 3), (2, 5)])
def test_a_rectangle_lies_inside_and_is_never_empty(flavour, size):
    top, left, h, w = many(size, Augment(flavour=flavour), 300).T
    assert min(h.min(), w.min()) >= 1 and min(top.min(), left.min()) >= 0
    assert (top + h).max() <= size[0] and (left + w).max() <= size[1]


@pytest.mark.parametrize("flavour", ["torchvision", "big_vision"])
def test_area_and_ratio_keep_their_limits(flavour):
    augment = Augment(flavour=flavour, crop_scale=(0.2, 0.6), crop_ratio=(0.5, 1.5))
    _, _, h, w = many((300, 400), augment, 3000).T
    areas, ratios = h * w / 120_000, w / h
    assert areas.min() > 0.195 and areas.max() < 0.605 and areas.max() - areas.min() > 0.37
    assert ratios.min() > 0.49 and ratios.max() < 1.52 and ratios.max() - ratios.min() > 0.95


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (32, 32), (224, 224)])
def test_heights_and_areas_are_those_of_tensorflow(size):
    if not RECORDED.exists():
        pytest.skip(f"the recorded quantiles of TensorFlow are not at {RECORDED}")
    drawn = many(size, TF)
    with np.load(RECORDED) as recorded:
        for name, values in (
            ("area", drawn[:, 2] * drawn[:, 3] / (size[0] * size[1])),
            ("h", drawn[:, 2] / size[0]),
        ):
            expected = recorded[f"{name}_q_{size[0]}x{size[1]}"]
            step = 1.5 / min(size)  # both are steps of whole pixels
            assert np.abs(np.quantile(values, LEVELS) - expected).max() < max(0.02, step), name


def test_heights_and_areas_are_those_of_torchvision():
    crop = transforms().RandomResizedCrop(224)
    torch.manual_seed(0)
    shape = [torch.empty(1, 375, 500)]
    theirs = [crop.make_params(shape) for _ in range(3000)]
    ours = many((375, 500), Augment(), 6000)
    for column, name in enumerate(("top", "left", "height", "width")):
        expected = np.quantile([params[name] for params in theirs], LEVELS)
        assert np.abs(np.quantile(ours[:, column], LEVELS) - expected).max() < 25, name


def test_the_two_flavours_differ_as_the_paper_reference_says():
    def mean_area(augment: Augment) -> float:
        drawn = many((375, 500), augment, 6000)
        return float((drawn[:, 2] * drawn[:, 3]).mean() / (375 * 500))

    assert abs(mean_area(TF) - 0.340) < 0.012
    assert abs(mean_area(Augment(crop_scale=(0.05, 1.0))) - 0.416) < 0.012


def test_tensorflow_never_draws_the_last_place():
    top, left, h, w = many((40, 50), TF, 4000).T
    assert ((top + h < 40) | (h == 40)).all() and ((left + w < 50) | (w == 50)).all()
    top, left, h, w = many((40, 50), Augment(), 4000).T
    assert ((top + h == 40) & (h < 40)).any()


def test_what_never_fits_falls_back():
    narrow = {"crop_scale": (0.9, 1.0)}
    assert rectangle((10, 400), Augment(**narrow), 0) == (0, 193, 10, 13)
    assert rectangle((10, 400), Augment(flavour="big_vision", **narrow), 0) == (0, 0, 10, 400)
