"""The style sheet: complete, offline, and legible on every shade."""

import re

import pytest

from vitral.report import style


def test_contrast_anchors_of_wcag():
    assert style.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert style.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert style.contrast("#123456", "#123456") == 1


@pytest.mark.parametrize("share", [i / 25 for i in range(26)])
def test_numbers_are_legible_on_every_shade(share):
    background, text = style.shade(share)
    assert re.fullmatch("#[0-9a-f]{6}", background)
    assert style.contrast(background, text) >= 4.5


def test_every_variable_that_is_used_is_defined():
    sheet = style.stylesheet()
    used = set(re.findall(r"var\(--([\w-]+)\)", sheet))
    defined = set(re.findall(r"--([\w-]+):", sheet))
    assert used - {"lit"} <= defined  # --lit is set by each pane
    assert "prefers-color-scheme:dark" in sheet
    assert sheet.count("{") == sheet.count("}")


def test_the_style_sheet_asks_for_nothing():
    assert not re.search(r"url\(|@import|https?:", style.stylesheet())
