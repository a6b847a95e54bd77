"""The figure: names in any script, no warning, the same bytes twice."""

import io
import logging
import re

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from vitral.explanation import Explanation, figure, lettering


def explanation(classes=("cat", "골프공", "<b>$x_1$ & \x07"), grid=(4, 4), heads=3, size=(32, 32)):
    random = np.random.default_rng(0)
    tokens = grid[0] * grid[1] + 1
    heat = random.random(grid).astype(np.float32)
    return Explanation(
        picture=random.integers(0, 256, (*size, 3), dtype=np.uint8),
        grid=grid,
        attention=np.full((2, heads, tokens, tokens), 1 / tokens, np.float32),
        rollout=np.full((tokens, tokens), 1 / tokens, np.float32),
        heat=heat / heat.sum(),
        heads=random.random((heads, *grid)).astype(np.float32),
        probabilities=np.linspace(0.5, 0.1, len(classes), dtype=np.float32),
        classes=tuple(classes),
    )


@pytest.fixture
def latin_only(monkeypatch):
    latin = {"DejaVu Sans": lettering.installed()["DejaVu Sans"]}
    monkeypatch.setattr(lettering, "installed", lambda: latin)


def shown(drawn):
    return {text.get_text() for text in drawn.findobj(Text)}


def test_a_png_is_wide_enough_to_read():
    assert Image.open(io.BytesIO(figure.render(explanation(), "png"))).width == 1440


@pytest.mark.usefixtures("latin_only")
def test_without_korean_fonts_a_png_numbers_the_class(caplog):
    with caplog.at_level(logging.WARNING):
        assert figure.render(explanation(), "png").startswith(b"\x89PNG")
    assert not caplog.records
    texts = shown(figure.compose(explanation(), "png"))
    assert "class 1" in texts
    assert "골프공" not in texts
    assert "cat" in texts


@pytest.mark.usefixtures("latin_only")
def test_an_svg_keeps_every_name_as_text(caplog):
    with caplog.at_level(logging.WARNING):
        svg = figure.render(explanation(), "svg").decode("utf-8")
    assert not caplog.records
    assert "골프공</text>" in svg
    assert "&lt;b&gt;$x_1$ &amp;</text>" in svg
    assert "Malgun Gothic" in svg
    assert "DejaVu" not in svg
    assert not re.search(r"(href|src)=\"(?!data:|#)", svg.replace("xlink:", ""))


def test_the_same_explanation_gives_the_same_bytes():
    assert figure.render(explanation(), "svg") == figure.render(explanation(), "svg")


@pytest.mark.parametrize(
    "changes",
    [
        {"grid": (2, 6), "size": (32, 96), "heads": 16},
        {"grid": (8, 1), "size": (80, 10), "heads": 1},
        {"classes": ("only",)},
        {"classes": ()},
        {"classes": ["a" * 200, "b", "c", "d"], "heads": 40},
    ],
    ids=str,
)
def test_any_shape_and_number_of_heads_fits_the_sheet(changes):
    drawn = figure.compose(explanation(**changes), "png")
    for axes in drawn.axes:
        box = axes.get_position()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 1 and box.y1 <= 1


def test_one_axes_per_head():
    titles = shown(figure.compose(explanation(heads=12), "png"))
    assert {f"head {i}" for i in range(1, 13)} <= titles
    assert "head 13" not in titles
