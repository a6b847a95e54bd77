"""Grid lines in their place, light where the heatmap is high, nothing outside the picture."""

import io

import numpy as np
import pytest
from PIL import Image

from vitral.drawing import pictures
from vitral.drawing.palette import LEADING, amounts, rgb
from vitral.drawing.pictures import overlay
from vitral.errors import UsageError

GREY = np.full((64, 96, 3), 128, dtype=np.uint8)
LINE = pictures.to_uint8(rgb(LEADING))


def test_overlay_keeps_the_shape_and_the_picture():
    before = GREY.copy()
    heatmap = np.arange(24.0).reshape(4, 6)
    result = overlay(GREY, heatmap)
    assert result.shape == GREY.shape
    assert result.dtype == np.uint8
    assert (before == GREY).all()


def test_the_lit_patch_is_the_brightest():
    heatmap = np.zeros((4, 6), dtype=np.float32)
    heatmap[1, 4] = 1
    middles = overlay(GREY, heatmap)[8::16, 8::16].astype(int).sum(-1)
    assert middles.argmax() == 1 * 6 + 4
    middles[1, 4] = middles[0, 0]
    assert (middles == middles[0, 0]).all()


def test_a_higher_amount_is_more_light_on_black_and_on_white():
    heatmap = np.linspace(0, 1, 6)[None]
    for shade in (0, 255):
        middles = (
            overlay(np.full_like(GREY, shade), heatmap)[32, 8::16].astype(float) @ pictures._LUMA
        )
        assert (np.diff(middles) > 0).all()


def test_grid_lines_lie_between_all_patches_and_around():
    drawn = pictures.draw_grid(GREY, (4, 6))
    for row in (0, 16, 32, 48, 63):
        assert (drawn[row] == LINE).all()
    for column in (0, 16, 32, 48, 64, 80, 95):
        assert (drawn[:, column] == LINE).all()
    assert (drawn[8, 8] == 128).all()


def test_tiny_patches_get_no_lines_and_odd_sizes_work():
    assert (pictures.draw_grid(GREY, (32, 32)) == 128).all()
    assert overlay(np.zeros((45, 31, 3), np.uint8), np.random.rand(7, 3)).shape == (45, 31, 3)


def test_equal_amounts_are_not_amplified():
    assert (pictures.to_unit_range(np.full((3, 3), 0.2)) == 0.5).all()
    assert (pictures.to_unit_range(np.zeros((3, 3))) == 0.5).all()
    noise = 1 / 9 + 1e-9 * np.arange(9).reshape(3, 3)
    assert (pictures.to_unit_range(noise) == 0.5).all()
    assert pictures.to_unit_range(np.array([[1.0, 3.0], [2.0, 1.0]])).tolist() == [[0, 1], [0.5, 0]]


def test_a_mosaic_has_leading_between_and_around_and_where_a_tile_is_missing():
    tiles = [np.full((4, 6, 3), shade, np.uint8) for shade in (10, 20, 30, 40, 50)]
    whole = pictures.mosaic(tiles, columns=3, gap=2)
    assert whole.shape == (2 * 6 + 2, 3 * 8 + 2, 3)
    assert (whole[2:6, 10:16] == 20).all()
    assert (whole[8:12, 2:8] == 40).all()
    for part in (whole[:2], whole[6:8], whole[:, :2], whole[:, 8:10], whole[6:, 16:]):
        assert (part == LINE).all()


def test_colours_span_the_map_from_lowest_to_highest():
    painted = pictures.to_colours(np.array([[3.0, 5.0], [4.0, 3.0]]))
    ends = pictures.to_uint8(amounts()([0.0, 1.0])[:, :3])
    assert (painted[0] == ends).all()
    assert (painted[1, 1] == ends[0]).all()


def test_upscale_repeats_pixels():
    small = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    large = pictures.upscale(small, 5)
    assert large.shape == (6, 6, 3)
    assert (large[:3, :3] == small[0, 0]).all()
    assert pictures.upscale(GREY, 10) is not None
    assert pictures.upscale(GREY, 64).shape == GREY.shape


def test_png_is_lossless():
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert (np.array(Image.open(io.BytesIO(pictures.png(picture)))) == picture).all()


@pytest.mark.parametrize(
    ("image", "heatmap", "message"),
    [
        (GREY.astype(np.float32), np.ones((2, 2)), "uint8"),
        (GREY[..., 0], np.ones((2, 2)), "uint8"),
        (GREY, np.ones(4), "does not fit"),
        (GREY, np.ones((65, 2)), "does not fit"),
        (GREY, np.full((2, 2), np.nan), "not finite"),
    ],
)
def test_what_is_no_picture_or_map_is_refused(image, heatmap, message):
    with pytest.raises(UsageError, match=message):
        overlay(image, heatmap)
