"""Panes: leading in its place, light where the heat is, nothing outside the picture."""

import io

import numpy as np
import pytest
from PIL import Image

from vitral.drawing import pictures
from vitral.drawing.palette import LEADING, rgb
from vitral.errors import UsageError
from vitral.explanation import overlay

GREY = np.full((64, 96, 3), 128, dtype=np.uint8)
LEAD = pictures.quantised(rgb(LEADING))


def test_overlay_keeps_the_shape_and_the_picture():
    before = GREY.copy()
    heat = np.arange(24.0).reshape(4, 6)
    result = overlay(GREY, heat)
    assert result.shape == GREY.shape
    assert result.dtype == np.uint8
    assert (before == GREY).all()


def test_the_lit_pane_is_the_brightest():
    heat = np.zeros((4, 6), dtype=np.float32)
    heat[1, 4] = 1
    middles = overlay(GREY, heat)[8::16, 8::16].astype(int).sum(-1)
    assert middles.argmax() == 1 * 6 + 4
    middles[1, 4] = middles[0, 0]
    assert (middles == middles[0, 0]).all()


def test_more_heat_is_more_light_on_black_and_on_white():
    heat = np.linspace(0, 1, 6)[None]
    for shade in (0, 255):
        middles = overlay(np.full_like(GREY, shade), heat)[32, 8::16].astype(float) @ pictures._LUMA
        assert (np.diff(middles) > 0).all()


def test_leading_lies_between_all_panes_and_around():
    led = pictures.lead(GREY, (4, 6))
    for row in (0, 16, 32, 48, 63):
        assert (led[row] == LEAD).all()
    for column in (0, 16, 32, 48, 64, 80, 95):
        assert (led[:, column] == LEAD).all()
    assert (led[8, 8] == 128).all()


def test_tiny_panes_get_no_leading_and_odd_sizes_work():
    assert (pictures.lead(GREY, (32, 32)) == 128).all()
    assert overlay(np.zeros((45, 31, 3), np.uint8), np.random.rand(7, 3)).shape == (45, 31, 3)


def test_equal_amounts_are_not_amplified():
    assert (pictures.spread(np.full((3, 3), 0.2)) == 0.5).all()
    assert (pictures.spread(np.zeros((3, 3))) == 0.5).all()
    noise = 1 / 9 + 1e-9 * np.arange(9).reshape(3, 3)
    assert (pictures.spread(noise) == 0.5).all()
    assert pictures.spread(np.array([[1.0, 3.0], [2.0, 1.0]])).tolist() == [[0, 1], [0.5, 0]]


def test_enlarge_repeats_pixels():
    small = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    large = pictures.enlarge(small, 5)
    assert large.shape == (6, 6, 3)
    assert (large[:3, :3] == small[0, 0]).all()
    assert pictures.enlarge(GREY, 10) is not None
    assert pictures.enlarge(GREY, 64).shape == GREY.shape


def test_png_is_lossless():
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert (np.array(Image.open(io.BytesIO(pictures.png(picture)))) == picture).all()


@pytest.mark.parametrize(
    ("image", "heat", "message"),
    [
        (GREY.astype(np.float32), np.ones((2, 2)), "uint8"),
        (GREY[..., 0], np.ones((2, 2)), "uint8"),
        (GREY, np.ones(4), "does not fit"),
        (GREY, np.ones((65, 2)), "does not fit"),
        (GREY, np.full((2, 2), np.nan), "not finite"),
    ],
)
def test_what_is_no_picture_or_map_is_refused(image, heat, message):
    with pytest.raises(UsageError, match=message):
        overlay(image, heat)
