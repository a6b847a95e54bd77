"""The figure: names in any script, no warning, the same bytes twice."""

import io
import logging
import re

import pytest
from explanations import explanation
from matplotlib.text import Text
from PIL import Image

from vitral.drawing import fonts
from vitral.explanation.figures import overview


@pytest.fixture
def latin_only(monkeypatch):
    latin = {"DejaVu Sans": fonts.installed_faces()["DejaVu Sans"]}
    monkeypatch.setattr(fonts, "installed_faces", lambda: latin)


def shown(drawn):
    return {text.get_text() for text in drawn.findobj(Text)}


def test_a_png_is_wide_enough_to_read():
    assert Image.open(io.BytesIO(overview.draw(explanation(), "png").to_bytes("png"))).width == 1440


@pytest.mark.usefixtures("latin_only")
def test_without_korean_fonts_a_png_numbers_the_class(caplog):
    with caplog.at_level(logging.WARNING):
        assert overview.draw(explanation(), "png").to_bytes("png").startswith(b"\x89PNG")
    assert not caplog.records
    texts = shown(overview.draw(explanation(), "png").figure)
    assert "class 1" in texts
    assert "골프공" not in texts
    assert "cat" in texts


@pytest.mark.usefixtures("latin_only")
def test_an_svg_keeps_every_name_as_text(caplog):
    with caplog.at_level(logging.WARNING):
        svg = overview.draw(explanation(), "svg").to_bytes("svg").decode("utf-8")
    assert not caplog.records
    assert "골프공</text>" in svg
    assert "&lt;b&gt;$x_1$ &amp;</text>" in svg
    assert "Malgun Gothic" in svg
    assert "DejaVu" not in svg
    assert not re.search(r"(href|src)=\"(?!data:|#)", svg.replace("xlink:", ""))


def test_the_same_explanation_gives_the_same_bytes():
    assert overview.draw(explanation(), "svg").to_bytes("svg") == overview.draw(
        explanation(), "svg"
    ).to_bytes("svg")


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
    drawn = overview.draw(explanation(**changes), "png").figure
    for axes in drawn.axes:
        box = axes.get_position()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 1 and box.y1 <= 1


def test_the_panels_are_those_that_there_is_something_for():
    whole = shown(overview.draw(explanation(), "png").figure)
    assert {"What the answer needs", "The heads of layer 2", "When it knew"} <= whole
    assert {
        "Is it true? Taken away first",
        "Is it true? Shown first",
        "+0.300: better than random order",
    } <= whole
    assert "how far hiding it lowers log p of cat" in whole
    relevant = shown(overview.draw(explanation(method="relevance"), "png").figure)
    assert {"What spoke for it", "gradient × attention for cat"} <= relevant
    few = shown(overview.draw(explanation(internals=False), "png").figure)
    assert "Is it true? Shown first" in few
    assert not {"The heads of layer 2", "When it knew"} & few
    untested = shown(overview.draw(explanation(tested=False), "png").figure)
    assert "Is it true? Shown first" not in untested
    looking = explanation(method="attention", query=(2, 3), layer=2, head=1, internals=False)
    asked = shown(overview.draw(looking, "png").figure)
    assert "layer 2, head 1: attention of patch 2,3" in asked


def test_one_axes_per_head():
    titles = shown(overview.draw(explanation(heads=12), "png").figure)
    assert {f"head {i}" for i in range(1, 13)} <= titles
    assert "head 13" not in titles
