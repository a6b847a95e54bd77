"""Inches from the upper left corner, our fonts, the same bytes twice."""

import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from vitral.drawing.figure import Canvas, style, style_axes
from vitral.drawing.palette import FONT_STACK, PAPER, rgb


def test_a_picture_lies_where_it_is_put_and_the_rest_is_paper():
    red = np.zeros((10, 20, 3), np.uint8)
    red[..., 0] = 200
    with style():
        canvas = Canvas(4.0, 3.0)
        canvas.picture(red, 1.0, 0.5, (2.0, 1.0))
        drawn = np.asarray(Image.open(io.BytesIO(canvas.to_bytes("png"))).convert("RGB"))
    assert drawn.shape == (360, 480, 3)
    assert drawn[120, 240].tolist() == [200, 0, 0]
    assert (
        drawn[200, 240].tolist() == drawn[30, 240].tolist() == np.round(255 * rgb(PAPER)).tolist()
    )


def test_the_style_ends_with_the_drawing():
    before = matplotlib.rcParams["svg.hashsalt"]
    with style():
        assert matplotlib.rcParams["svg.hashsalt"] == "vitral"
    assert matplotlib.rcParams["svg.hashsalt"] == before


@pytest.mark.parametrize("written", ["font: bold 9px 'A', 'B'", "font-family: 'A', 'B'"])
def test_the_fonts_of_an_svg_are_the_readers(monkeypatch, written):
    """Both ways in which versions of matplotlib write them."""
    text = f'<text style="fill: #5b5868; {written}; text-anchor: start" x="1">A</text>'
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda _, file, **__: file.write(text.encode())
    )
    expected = text.replace("'A', 'B'", FONT_STACK)
    assert Canvas(1.0, 1.0).to_bytes("svg").decode() == expected


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_drawing_gives_the_same_bytes(kind):
    def one():
        with style():
            canvas = Canvas(3.0, 2.0)
            canvas.heading(0.1, 0.0, "제목", "note $x$")
            axes = canvas.axes(0.5, 1.0, 2.0, 0.7)
            axes.plot([0, 1], [0, 1])
            style_axes(axes, "x", "y")
            return canvas.to_bytes(kind)

    assert one() == one()
