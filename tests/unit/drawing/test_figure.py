"""Inches from the upper left corner, the house's fonts, the same bytes twice."""

import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from vitral.drawing.figure import Sheet, frame, house
from vitral.drawing.palette import PAPER, rgb


def test_a_picture_lies_where_it_is_put_and_the_rest_is_paper():
    red = np.zeros((10, 20, 3), np.uint8)
    red[..., 0] = 200
    with house():
        sheet = Sheet(4.0, 3.0)
        sheet.picture(red, 1.0, 0.5, (2.0, 1.0))
        drawn = np.asarray(Image.open(io.BytesIO(sheet.encoded("png"))).convert("RGB"))
    assert drawn.shape == (360, 480, 3)
    assert drawn[120, 240].tolist() == [200, 0, 0]
    assert (
        drawn[200, 240].tolist() == drawn[30, 240].tolist() == np.round(255 * rgb(PAPER)).tolist()
    )


def test_the_style_ends_with_the_drawing():
    before = matplotlib.rcParams["svg.hashsalt"]
    with house():
        assert matplotlib.rcParams["svg.hashsalt"] == "vitral"
    assert matplotlib.rcParams["svg.hashsalt"] == before


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_drawing_gives_the_same_bytes(kind):
    def one():
        with house():
            sheet = Sheet(3.0, 2.0)
            sheet.heading(0.1, 0.0, "제목", "note $x$")
            axes = sheet.axes(0.5, 1.0, 2.0, 0.7)
            axes.plot([0, 1], [0, 1])
            frame(axes)
            return sheet.encoded(kind)

    assert one() == one()
