"""The palette: legible on its paper, and an amount map that any eye can order."""

import pytest

from vitral.drawing import palette
from vitral.report.style import contrast


def test_rgb():
    assert palette.rgb("#ff0080").tolist() == [1.0, 0.0, 128 / 255]


@pytest.mark.parametrize(
    ("text", "paper"),
    [
        (palette.INK, palette.PAPER),
        (palette.MUTED, palette.PAPER),
        (palette.RUBY, palette.PAPER),
        (palette.PAPER, palette.LEADING),
        (palette.INK_DARK, palette.PAPER_DARK),
        (palette.MUTED_DARK, palette.PAPER_DARK),
        *((pane, palette.PAPER_DARK) for pane in palette.PANES_DARK),
    ],
)
def test_text_has_the_contrast_of_wcag_aa(text, paper):
    assert contrast(text, paper) >= 4.5


def test_amounts_grow_lighter_all_the_way():
    colours = [palette.amounts()(i / 20)[:3] for i in range(21)]
    hexes = ["#" + "".join(f"{round(255 * v):02x}" for v in colour) for colour in colours]
    light = [contrast(colour, "#000000") for colour in hexes]
    assert light == sorted(light)


def test_the_font_stack_has_korean_faces_and_no_url():
    assert "Malgun Gothic" in palette.FONT_STACK
    assert "url" not in palette.FONT_STACK
