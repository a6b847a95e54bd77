"""The figure of one explanation: picture, panes, rollout, heads of the last block, answer.

Laid out in inches, because the height follows the picture's shape and the number of heads.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from typing import TYPE_CHECKING, Any, Literal

from vitral.explanation import lettering
from vitral.explanation.palette import (
    AMOUNTS,
    COBALT,
    FONT_STACK,
    INK,
    LEADING,
    MUTED,
    PAPER,
    amounts,
)
from vitral.explanation.panes import Picture, enlarge, lead, overlay, quantised, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vitral.explanation.explanation import Explanation

_WIDTH, _MARGIN, _GAP, _PANEL = 12.0, 0.4, 0.35, 3.2
_HEADING = 0.72  # above each part: a title and a note
_ANSWER = 2.35  # height of three bars


def render(explanation: Explanation, kind: Literal["png", "svg"]) -> bytes:
    """The figure as the bytes of a PNG or SVG file; the same explanation gives the same bytes.

    Names that the machine's fonts cannot write are given by their number in a PNG (lettering.py).
    """
    import matplotlib  # noqa: PLC0415  0.3 s that only a caller who draws should pay

    style: dict[Any, Any] = {
        "font.family": list(lettering.installed()),
        "svg.fonttype": "none",
        "svg.hashsalt": "vitral",
        "text.color": INK,
        "text.parse_math": False,
    }
    buffer = io.BytesIO()
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # only SVG text can lack a glyph here: matplotlib measures it, the reader's fonts draw it
        warnings.filterwarnings("ignore", message=r"Glyph \d+|Matplotlib currently does not")
        figure = compose(explanation, kind)
        figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    if kind == "png":
        return buffer.getvalue()
    return re.sub(
        rb'font-family: [^;"]*', b"font-family: " + FONT_STACK.encode(), buffer.getvalue()
    )


def compose(explanation: Explanation, kind: str) -> Figure:
    """The figure, not yet drawn; `kind` decides how names are written."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    height, width = explanation.picture.shape[:2]
    shape = min(max(height / width, 0.3), 1.6)
    heads = len(explanation.heads)
    columns = min(heads, 6 if heads <= 12 else 8)
    side = min(1.9, (2 * _PANEL + _GAP + 0.12) / columns - 0.12)
    rows = math.ceil(heads / columns)
    lower = max(_ANSWER, rows * (side * shape + 0.32))
    total = 2 * _HEADING + _PANEL * shape + 0.3 + lower + 0.15
    sheet = _Sheet(Figure(figsize=(_WIDTH, total), dpi=120, facecolor=PAPER), total)
    _pictures(sheet, explanation, shape)
    top = _HEADING + _PANEL * shape + 0.3
    _heads(sheet, explanation, top, (columns, side, side * shape))
    _answer(sheet, explanation, top, kind)
    return sheet.figure


class _Sheet:
    """A figure addressed in inches from its upper left corner."""

    def __init__(self, figure: Figure, height: float) -> None:
        self.figure, self.height = figure, height

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = (self.height - top - height) / self.height
        return self.figure.add_axes((left / _WIDTH, bottom, width / _WIDTH, height / self.height))

    def heading(self, left: float, top: float, title: str, note: str) -> None:
        for down, text, size, weight, colour in (
            (0.38, title, 13, "bold", INK),
            (0.60, note, 9.5, "normal", MUTED),
        ):
            self.figure.text(
                left / _WIDTH,
                1 - (top + down) / self.height,
                text,
                fontsize=size,
                weight=weight,
                color=colour,
            )

    def picture(self, picture: Picture, left: float, top: float, size: tuple[float, float]) -> Axes:
        axes = self.axes(left, top, *size)
        axes.imshow(picture, interpolation="antialiased")
        axes.set(xticks=[], yticks=[], anchor="NW")
        for spine in axes.spines.values():
            spine.set(color=LEADING, linewidth=1.5)
        return axes


def _pictures(sheet: _Sheet, explanation: Explanation, shape: float) -> None:
    height, width = explanation.picture.shape[:2]
    rows, columns = explanation.grid
    large = enlarge(explanation.picture, 448)
    pane = f"{height / rows:.3g} × {width / columns:.3g} pixels"
    panels = (
        ("What the model received", f"{height} × {width} pixels", large),
        (
            f"Its {rows * columns} patches",
            f"{rows} × {columns} panes of {pane}",
            lead(large, explanation.grid),
        ),
        (
            "Where it looked",
            "attention rollout over all blocks",
            overlay(large, explanation.heat),
        ),
    )
    for i, (title, note, picture) in enumerate(panels):
        left = _MARGIN + i * (_PANEL + _GAP)
        sheet.heading(left, 0, title, note)
        sheet.picture(picture, left, _HEADING, (_PANEL, _PANEL * shape))
    _scale(sheet, explanation, shape)


def _scale(sheet: _Sheet, explanation: Explanation, shape: float) -> None:
    """The colour bar of the rollout: share of the attention per patch, in per cent."""
    from matplotlib.cm import ScalarMappable  # noqa: PLC0415
    from matplotlib.colors import Normalize  # noqa: PLC0415

    low, high = 100 * float(explanation.heat.min()), 100 * float(explanation.heat.max())
    bar = sheet.axes(_MARGIN + 3 * _PANEL + 2 * _GAP + 0.13, _HEADING, 0.15, _PANEL * shape)
    span = Normalize(low, max(high, low + 1e-9))
    sheet.figure.colorbar(ScalarMappable(span, AMOUNTS), cax=bar)
    bar.set_yticks([low, (low + high) / 2, high])
    labels = [f"{low:.2g} %", "share\nper patch", f"{high:.2g} %"]
    bar.set_yticklabels(labels, color=MUTED, fontsize=9)
    bar.tick_params(length=0, pad=4)
    bar.yaxis.get_ticklabels()[0].set_verticalalignment("bottom")
    bar.yaxis.get_ticklabels()[2].set_verticalalignment("top")
    for spine in bar.spines.values():
        spine.set(color=LEADING, linewidth=1.5)


def _heads(
    sheet: _Sheet, explanation: Explanation, top: float, cell: tuple[int, float, float]
) -> None:
    columns, width, height = cell
    note = "each from its least (dark) to its most (bright) attended patch"
    sheet.heading(_MARGIN, top, "The heads of the last block", note)
    for i, heat in enumerate(explanation.heads):
        row, column = divmod(i, columns)
        picture = enlarge(quantised(amounts()(spread(heat))[..., :3]), 150)
        left = _MARGIN + column * (width + 0.12)
        down = top + _HEADING + 0.2 + row * (height + 0.32)
        axes = sheet.picture(lead(picture, explanation.grid), left, down, (width, height))
        axes.set_title(f"head {i + 1}", fontsize=9, color=MUTED, pad=3, loc="left")


def _answer(sheet: _Sheet, explanation: Explanation, top: float, kind: str) -> None:
    left = _MARGIN + 2 * (_PANEL + _GAP)
    best = explanation.top(3)
    note = "probability of the best classes" if best else "nothing: the model has no head"
    sheet.heading(left, top, "What it answered", note)
    if not best:
        return
    axes = sheet.axes(left, top + _HEADING, 4.0, _ANSWER)
    axes.set(xlim=(0, 1), ylim=(2.6, -0.4))
    axes.axis("off")
    for place, (name, probability) in enumerate(best):
        shown = lettering.clean(name)
        if kind == "png" and not lettering.drawable(shown):
            shown = f"class {explanation.classes.index(name)}"
        weight = "bold" if place == 0 else "normal"
        axes.barh(place + 0.14, 1, 0.3, color=INK, alpha=0.08)
        axes.barh(place + 0.14, probability, 0.3, color=COBALT)
        for x, text, align in ((0, shown, "left"), (1, f"{100 * probability:.1f} %", "right")):
            axes.text(x, place - 0.1, text, fontsize=11.5, weight=weight, ha=align, va="bottom")
