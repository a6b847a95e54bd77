"""The overview of one explanation: picture, patches, map, heads, answer, test, layers.

Laid out in inches, because the height follows the picture's shape and the number of heads.
"""

from __future__ import annotations

import math

from vitral.drawing import fonts
from vitral.drawing.figure import Canvas, Kind, style
from vitral.drawing.palette import AMOUNTS, LEADING, MUTED
from vitral.drawing.pictures import draw_grid, overlay, to_colours, upscale
from vitral.explanation.figures import panels
from vitral.explanation.findings import Faithfulness, Findings, Internals

_WIDTH = 12.0  # of the whole, in inches like all that follow
_MARGIN = 0.4
_GAP = 0.35  # between the panels of a row
_PANEL = 3.2  # width of a picture or a curve
_HEADING = 0.72  # above each part: a title and a note
_LOWER = 2.35  # height of three bars, and of the curves
_BAR = 0.19  # of one layer of the logit lens
_CRISP = 448  # pixels of the shorter side of the picture, for crisp lines


@style()
def draw(findings: Findings, kind: Kind) -> Canvas:
    """Compose the overview of an explanation; the same findings give the same bytes.

    `kind` decides how names are written: those that the machine's fonts cannot write are given by
    their number in a PNG (drawing/fonts).

    First row: the pictures. Second: the heads of one layer (or the test, where no internals were
    kept) beside the answer. Third: the test beside the logit lens.
    """
    height, width = findings.picture.shape[:2]
    shape = min(max(height / width, 0.3), 1.6)
    internals = findings.internals
    test = findings.faithfulness
    columns = 1
    side = 1.0
    lower = _LOWER
    if internals is not None:
        heads = len(internals.head_maps)
        columns = min(heads, 6 if heads <= 12 else 8)
        side = min(1.9, (2 * _PANEL + _GAP + 0.12) / columns - 0.12)
        lower = max(lower, math.ceil(heads / columns) * (side * shape + 0.32))
    second = _HEADING + _PANEL * shape + 0.3
    third = second + _HEADING + lower + 0.3
    bottom = third
    if internals is not None and (test is not None or findings.classes):
        bottom += _HEADING + max(_LOWER, _BAR * len(internals.layer_logits)) + 0.6
    canvas = Canvas(_WIDTH, bottom)
    _pictures(canvas, findings, shape, kind)
    left = _MARGIN + 2 * (_PANEL + _GAP)
    note = "probability of the best classes" if findings.classes else "nothing: it has no head"
    canvas.heading(left, second, "What it answered", note)
    if findings.classes:
        panels.top_classes(canvas.axes(left, second + _HEADING, 4.0, _LOWER), findings, kind)
    if internals is not None:
        _heads(canvas, findings, internals, second, columns, (side, side * shape))
    if test is not None:
        _test(canvas, test, second if internals is None else third)
    if internals is not None and findings.classes:
        canvas.heading(left, third, "When it knew", "the head read after every layer (dot: target)")
        tall = max(_LOWER, _BAR * len(internals.layer_logits)) - 0.2
        axes = canvas.axes(left + 0.55, third + _HEADING + 0.2, 3.45, tall)
        panels.logit_lens(axes, findings, internals, kind)
    return canvas


def title_of(findings: Findings, kind: Kind) -> tuple[str, str]:
    """Say what the map shows: a heading and a note."""
    match findings.method:
        case "occlusion" | "gradient" | "relevance" as method if findings.target is not None:
            index = findings.classes.index(findings.target)
            name = fonts.class_label(findings.classes, index, kind)
            if method == "occlusion":
                return "What the answer needs", f"how far hiding it lowers log p of {name}"
            if method == "gradient":
                return "What spoke for it", f"integrated gradients for {name}"
            return "What spoke for it", f"gradient × attention for {name}"
        case "attention":
            head = "mean of heads" if findings.head is None else f"head {findings.head}"
            layer = "" if findings.layer is None else f"layer {findings.layer}, "
            return "Where it looked", f"{layer}{head}: {panels.attention_of(findings)}"
        case _:
            return "Where it looked", f"rollout over all blocks: {panels.attention_of(findings)}"


def _pictures(canvas: Canvas, findings: Findings, shape: float, kind: Kind) -> None:
    height, width = findings.picture.shape[:2]
    rows, columns = findings.grid
    large = upscale(findings.picture, _CRISP)
    patch = f"{height / rows:.3g} × {width / columns:.3g} pixels"
    note = f"{rows} × {columns} panes of {patch}"
    parts = (
        (("What the model received", f"{height} × {width} pixels"), large),
        ((f"Its {rows * columns} patches", note), draw_grid(large, findings.grid)),
        (title_of(findings, kind), overlay(large, findings.heatmap)),
    )
    for i, (title, picture) in enumerate(parts):
        left = _MARGIN + i * (_PANEL + _GAP)
        canvas.heading(left, 0, *title)
        canvas.picture(picture, left, _HEADING, (_PANEL, _PANEL * shape))
    _scale(canvas, findings, shape)


def _scale(canvas: Canvas, findings: Findings, shape: float) -> None:
    """The colour bar of the map: share per patch, in per cent."""
    from matplotlib.cm import ScalarMappable  # noqa: PLC0415  0.3 s that only drawing should pay
    from matplotlib.colors import Normalize  # noqa: PLC0415

    low = 100 * float(findings.heatmap.min())
    high = 100 * float(findings.heatmap.max())
    bar = canvas.axes(_MARGIN + 3 * _PANEL + 2 * _GAP + 0.13, _HEADING, 0.15, _PANEL * shape)
    span = Normalize(low, max(high, low + 1e-9))
    canvas.figure.colorbar(ScalarMappable(span, AMOUNTS), cax=bar)
    bar.set_yticks([low, (low + high) / 2, high])
    labels = [f"{low:.2g} %" if low >= 0.01 else "0 %", "share\nper patch", f"{high:.3g} %"]
    bar.set_yticklabels(labels, color=MUTED, fontsize=9)
    bar.tick_params(length=0, pad=4)
    bar.yaxis.get_ticklabels()[0].set_verticalalignment("bottom")
    bar.yaxis.get_ticklabels()[2].set_verticalalignment("top")
    for spine in bar.spines.values():
        spine.set(color=LEADING, linewidth=1.5)


def _heads(
    canvas: Canvas,
    findings: Findings,
    internals: Internals,
    top: float,
    columns: int,
    size: tuple[float, float],
) -> None:
    """The heads of one layer, each of `size` (width, height) inches."""
    width, height = size
    note = f"{panels.attention_of(findings)}, each from its least (dark) to its most (bright)"
    canvas.heading(_MARGIN, top, f"The heads of layer {internals.layer}", note)
    for i, heatmap in enumerate(internals.head_maps):
        row, column = divmod(i, columns)
        picture = draw_grid(upscale(to_colours(heatmap), 150), findings.grid)
        left = _MARGIN + column * (width + 0.12)
        down = top + _HEADING + 0.2 + row * (height + 0.32)
        axes = canvas.picture(picture, left, down, size)
        axes.set_title(f"head {i + 1}", fontsize=9, color=MUTED, pad=3, loc="left")


def _test(canvas: Canvas, test: Faithfulness, top: float) -> None:
    """Deletion and insertion side by side."""
    parts = (
        ("Taken away first", test.deletion_score, True),
        ("Shown first", test.insertion_score, False),
    )
    for i, (title, score, deletion) in enumerate(parts):
        left = _MARGIN + i * (_PANEL + _GAP)
        canvas.heading(left, top, f"Is it true? {title}", f"{score:+.3f}: {test.verdict(score)}")
        axes = canvas.axes(left + 0.5, top + _HEADING + 0.1, _PANEL - 0.55, _LOWER - 0.45)
        panels.faithfulness_curve(axes, test, deletion=deletion)
