"""The overview of one explanation: picture, panes, map, heads, answer, test, layers.

Laid out in inches, because the height follows the picture's shape and the number of heads.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vitral.drawing import fonts
from vitral.drawing.figure import Canvas, Kind, style
from vitral.drawing.palette import AMOUNTS, LEADING, MUTED
from vitral.drawing.pictures import draw_grid, overlay, to_colours, upscale
from vitral.explanation.figures import panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vitral.explanation.explain import Explanation, Inside
    from vitral.explanation.faithfulness import Faithfulness

_WIDTH, _MARGIN, _GAP, _PANEL = 12.0, 0.4, 0.35, 3.2
_HEADING = 0.72  # above each part: a title and a note
_LOWER = 2.35  # height of three bars, and of the curves
_BAR = 0.19  # of one layer of the lens


def render(explanation: Explanation, kind: Kind) -> bytes:
    """The overview as the bytes of a PNG or SVG file; the same explanation gives the same bytes.

    Names that the machine's fonts cannot write are given by their number in a PNG (lettering.py).
    """
    with style():
        return _composed(explanation, kind).to_bytes(kind)


def compose(explanation: Explanation, kind: Kind) -> Figure:
    """The figure, not yet drawn; `kind` decides how names are written."""
    with style():
        return _composed(explanation, kind).figure


def _composed(explanation: Explanation, kind: Kind) -> Canvas:
    height, width = explanation.picture.shape[:2]
    shape = min(max(height / width, 0.3), 1.6)
    inside, test = explanation.inside, explanation.faithfulness
    second = _HEADING + _PANEL * shape + 0.3
    columns, side, lower = 1, 1.0, _LOWER
    if inside is not None:
        heads = len(inside.heads)
        columns = min(heads, 6 if heads <= 12 else 8)
        side = min(1.9, (2 * _PANEL + _GAP + 0.12) / columns - 0.12)
        lower = max(lower, math.ceil(heads / columns) * (side * shape + 0.32))
    third = second + _HEADING + lower + 0.3
    deep = 0.0
    if inside is not None and (test is not None or explanation.classes):
        deep = _HEADING + max(_LOWER, _BAR * len(inside.lens)) + 0.6
    sheet = Canvas(_WIDTH, third + deep)
    _pictures(sheet, explanation, shape, kind)
    left = _MARGIN + 2 * (_PANEL + _GAP)
    note = "probability of the best classes" if explanation.classes else "nothing: it has no head"
    sheet.heading(left, second, "What it answered", note)
    if explanation.classes:
        panels.answer(sheet.axes(left, second + _HEADING, 4.0, _LOWER), explanation, kind)
    if inside is not None:
        _heads(sheet, explanation, inside, second, (columns, side, side * shape))
    if test is not None:
        _test(sheet, test, second if inside is None else third)
    if inside is not None and explanation.classes:
        sheet.heading(left, third, "When it knew", "the head read after every layer (dot: target)")
        tall = max(_LOWER, _BAR * len(inside.lens)) - 0.2
        axes = sheet.axes(left + 0.55, third + _HEADING + 0.2, 3.45, tall)
        panels.lens(axes, explanation, inside, kind)
    return sheet


def title_of(explanation: Explanation, kind: Kind) -> tuple[str, str]:
    """What the map shows: a heading and a note."""
    match explanation.method:
        case "occlusion" | "relevance" as method if explanation.target is not None:
            place = explanation.classes.index(explanation.target)
            name = fonts.class_label(explanation.classes, place, kind)
            if method == "occlusion":
                return "What the answer needs", f"how far hiding it lowers log p of {name}"
            return "What spoke for it", f"gradient × attention for {name}"
        case "attention":
            head = "mean of heads" if explanation.head is None else f"head {explanation.head}"
            layer = "" if explanation.layer is None else f"layer {explanation.layer}, "
            return "Where it looked", f"{layer}{head}: {panels.asked(explanation)}"
        case _:
            return "Where it looked", f"rollout over all blocks: {panels.asked(explanation)}"


def _pictures(sheet: Canvas, explanation: Explanation, shape: float, kind: Kind) -> None:
    height, width = explanation.picture.shape[:2]
    rows, columns = explanation.grid
    large = upscale(explanation.picture, 448)
    pane = f"{height / rows:.3g} × {width / columns:.3g} pixels"
    told = f"{rows} × {columns} panes of {pane}"
    shown = (
        (("What the model received", f"{height} × {width} pixels"), large),
        ((f"Its {rows * columns} patches", told), draw_grid(large, explanation.grid)),
        (title_of(explanation, kind), overlay(large, explanation.heat)),
    )
    for i, (title, picture) in enumerate(shown):
        left = _MARGIN + i * (_PANEL + _GAP)
        sheet.heading(left, 0, *title)
        sheet.picture(picture, left, _HEADING, (_PANEL, _PANEL * shape))
    _scale(sheet, explanation, shape)


def _scale(sheet: Canvas, explanation: Explanation, shape: float) -> None:
    """The colour bar of the map: share per patch, in per cent."""
    from matplotlib.cm import ScalarMappable  # noqa: PLC0415  0.3 s that only drawing should pay
    from matplotlib.colors import Normalize  # noqa: PLC0415

    low, high = 100 * float(explanation.heat.min()), 100 * float(explanation.heat.max())
    bar = sheet.axes(_MARGIN + 3 * _PANEL + 2 * _GAP + 0.13, _HEADING, 0.15, _PANEL * shape)
    span = Normalize(low, max(high, low + 1e-9))
    sheet.figure.colorbar(ScalarMappable(span, AMOUNTS), cax=bar)
    bar.set_yticks([low, (low + high) / 2, high])
    labels = [f"{low:.2g} %" if low >= 0.01 else "0 %", "share\nper patch", f"{high:.3g} %"]
    bar.set_yticklabels(labels, color=MUTED, fontsize=9)
    bar.tick_params(length=0, pad=4)
    bar.yaxis.get_ticklabels()[0].set_verticalalignment("bottom")
    bar.yaxis.get_ticklabels()[2].set_verticalalignment("top")
    for spine in bar.spines.values():
        spine.set(color=LEADING, linewidth=1.5)


def _heads(
    sheet: Canvas,
    explanation: Explanation,
    inside: Inside,
    top: float,
    cell: tuple[int, float, float],
) -> None:
    columns, width, height = cell
    note = f"{panels.asked(explanation)}, each from its least (dark) to its most (bright)"
    sheet.heading(_MARGIN, top, f"The heads of layer {inside.layer}", note)
    for i, heat in enumerate(inside.heads):
        row, column = divmod(i, columns)
        picture = upscale(to_colours(heat), 150)
        left = _MARGIN + column * (width + 0.12)
        down = top + _HEADING + 0.2 + row * (height + 0.32)
        axes = sheet.picture(draw_grid(picture, explanation.grid), left, down, (width, height))
        axes.set_title(f"head {i + 1}", fontsize=9, color=MUTED, pad=3, loc="left")


def _test(sheet: Canvas, test: Faithfulness, top: float) -> None:
    """Deletion and insertion side by side."""
    parts = (
        ("Taken away first", test.deletion_score, True),
        ("Shown first", test.insertion_score, False),
    )
    for i, (title, score, deletion) in enumerate(parts):
        left = _MARGIN + i * (_PANEL + _GAP)
        sheet.heading(left, top, f"Is it true? {title}", f"{score:+.3f}: {test.verdict(score)}")
        axes = sheet.axes(left + 0.5, top + _HEADING + 0.1, _PANEL - 0.55, _LOWER - 0.45)
        panels.curve(axes, test, deletion=deletion)
