"""The figures of a model: what they show, with units and values, and the same bytes every time."""

import io

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from vitral.drawing.palette import FONT_STACK, PAPER, rgb
from vitral.drawing.pictures import to_uint8
from vitral.explanation.figures import model

RANDOM = np.random.default_rng(0)


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def tiles(figure):
    return [axes for axes in figure.axes if axes.images]


@pytest.mark.parametrize(("count", "channels"), [(28, 3), (5, 1), (1, 4)])
def test_one_tile_per_component_over_its_own_range(count, channels):
    components = RANDOM.normal(size=(count, 4, 6, channels))
    shares = np.linspace(0.5, 0, count)
    figure = model.filters(components, shares, "the 64 filters of the patch projection").figure
    assert len(tiles(figure)) == count
    for axes, component in zip(tiles(figure), components, strict=True):
        shown = np.asarray(axes.images[0].get_array())
        assert (shown.min(), shown.max()) == (0, 255)
        visible = component[..., :3] if channels >= 3 else component[..., :1]
        brightest = np.unravel_index(visible.argmax(), visible.shape)
        times = shown.shape[0] // 4
        assert shown[brightest[0] * times, brightest[1] * times, brightest[2]] == 255
    assert "1 · 50.0 %" in texts(figure)
    assert f"The first {count} principal components" in " ".join(texts(figure))
    assert "4 × 6 pixels" in " ".join(texts(figure))


def test_a_tile_stands_where_its_patch_is():
    similarity = np.full((3, 5, 3, 5), -1.0)
    for row in range(3):
        for column in range(5):
            similarity[row, column, row, column] = 1
    figure = model.positions(similarity).figure
    axes = tiles(figure)[0]
    lit = np.asarray(axes.images[0].get_array())[..., 0] > 200  # cividis ends in yellow
    side = int(lit.sum() / 15) ** 0.5  # pixels of a patch
    assert side == int(side) > 4
    for row, middle in enumerate(axes.get_yticks()):
        for column, centre in enumerate(axes.get_xticks()):
            y = round(middle + (row - 1) * side)
            x = round(centre + (column - 2) * side)
            assert lit[y, x], f"tile {row}, {column}"
    assert {"Input patch row", "Input patch column", "Cosine similarity"} <= set(texts(figure))


def test_of_many_patches_the_first_and_the_last_are_among_the_tiles():
    axes = tiles(model.positions(np.zeros((14, 20, 14, 20))).figure)[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    columns = [label.get_text() for label in axes.get_xticklabels()]
    assert (len(rows), rows[0], rows[-1]) == (8, "1", "14")
    assert (len(columns), columns[0], columns[-1]) == (8, "1", "20")


def test_every_head_is_a_dot_and_the_anchor_has_its_value():
    pixels = RANDOM.uniform(10, 100, (3, 4))
    figure = model.distances(pixels, 116.49, 128).figure
    axes = figure.axes[0]
    dots = axes.collections[0].get_offsets().data
    np.testing.assert_allclose(dots[:, 1], pixels.ravel())
    assert dots[:, 0].tolist() == [1] * 4 + [2] * 4 + [3] * 4
    assert axes.lines[0].get_ydata()[0] == 116.49
    assert axes.get_ylim()[1] > 116.49
    shown = " ".join(texts(figure))
    assert "116.49 pixels" in shown
    assert "128 images" in shown
    assert {"Network depth (block)", "Mean attention distance (pixels)"} <= set(texts(figure))


def test_one_patch_alone_has_no_distance():
    figure = model.distances(np.zeros((1, 2)), 0.0, 1).figure
    assert "average of 1 image" in " ".join(texts(figure))


@pytest.mark.parametrize("count", [1, 6])
def test_each_picture_stands_above_its_two_maps(count):
    pictures = RANDOM.integers(0, 256, (count, 32, 48, 3), dtype=np.uint8)
    figure = model.rollouts(pictures, RANDOM.random((count, 2, 2, 3))).figure
    assert len(tiles(figure)) == 3 * count
    assert {"input", "with residual", "without"} <= set(texts(figure))
    first = np.asarray(tiles(figure)[0].images[0].get_array())
    np.testing.assert_array_equal(
        first[:: first.shape[0] // 32, :: first.shape[1] // 48], pictures[0]
    )


def test_saved_as_picture_and_as_text_the_same_twice(tmp_path):
    contents = []
    for name in ("a", "b"):
        canvas = model.distances(np.ones((2, 2)), 2.0, 2)
        paths = model.save(tmp_path / name / "distance", canvas)
        assert [path.name for path in paths] == ["distance.png", "distance.svg"]
        contents.append([path.read_bytes() for path in paths])
    assert contents[0] == contents[1]
    picture = np.asarray(Image.open(io.BytesIO(contents[0][0])))
    assert picture.shape[1] == 912
    np.testing.assert_array_equal(picture[0, 0, :3], to_uint8(rgb(PAPER)))
    svg = contents[0][1].decode()
    assert "Mean attention distance (pixels)" in svg
    assert FONT_STACK in svg
    assert "DejaVu" not in svg
