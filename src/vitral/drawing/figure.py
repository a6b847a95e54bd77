"""A canvas to draw figures on, addressed in inches from its upper left corner.

with style():
    canvas = Canvas(8.0, 4.0)
    canvas.heading(0.4, 0.0, "A title", "and what it says")
    png = canvas.to_bytes("png")
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from vitral.drawing import fonts
from vitral.drawing.palette import FONT_STACK, INK, LEADING, MUTED, PAPER
from vitral.drawing.pictures import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Kind = Literal["png", "svg"]


class Canvas:
    """A matplotlib figure of (width, height) inches; draw on it within `style()`."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure  # noqa: PLC0415  0.3 s that only drawing should pay

        self.figure = Figure(figsize=(width, height), dpi=120, facecolor=PAPER)
        self.width = width
        self.height = height

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add empty axes."""
        bottom = (self.height - top - height) / self.height  # matplotlib counts from below
        return self.figure.add_axes(
            (left / self.width, bottom, width / self.width, height / self.height)
        )

    def heading(self, left: float, top: float, title: str, note: str) -> None:
        """Write a title and a note under it, within 0.72 inches from `top`."""
        self.text(left, top + 0.38, title, size=13, weight="bold", colour=INK)
        self.text(left, top + 0.60, note, size=9.5)

    def text(
        self,
        left: float,
        baseline: float,
        text: str,
        *,
        size: float = 8.5,
        weight: str = "normal",
        colour: str = MUTED,
    ) -> None:
        """Write one line that stands on the height `baseline`."""
        place = (left / self.width, 1 - baseline / self.height)
        self.figure.text(*place, text, fontsize=size, weight=weight, color=colour)

    def picture(self, picture: Picture, left: float, top: float, size: tuple[float, float]) -> Axes:
        """Add a picture of `size` (width, height) inches with a frame around it."""
        axes = self.axes(left, top, *size)
        axes.imshow(picture, interpolation="antialiased")
        axes.set(xticks=[], yticks=[], anchor="NW")
        for spine in axes.spines.values():
            spine.set(color=LEADING, linewidth=1.5)
        return axes

    def to_bytes(self, kind: Kind) -> bytes:
        """Encode the canvas as a PNG or SVG file; the same drawing gives the same bytes."""
        buffer = io.BytesIO()
        with style():  # fonts are looked up when text is drawn
            undated = {"Date": None} if kind == "svg" else None
            self.figure.savefig(buffer, format=kind, metadata=undated)
        if kind == "png":
            return buffer.getvalue()
        # matplotlib names the faces of this machine, up to 3.9 behind size and weight (font: bold
        # 9px ...); the reader's machine may have others of the list
        family = rb"\g<1>" + FONT_STACK.encode()
        return re.sub(rb'(font-family: |font: [^;"]*?px )[^;"]*', family, buffer.getvalue())


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Draw what is inside the context in Vitral's fonts and colours."""
    import matplotlib  # noqa: PLC0415  as above

    settings: dict[Any, Any] = {
        "font.family": list(fonts.installed_faces()),
        "svg.fonttype": "none",
        "svg.hashsalt": "vitral",
        "text.color": INK,
        "text.parse_math": False,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # only SVG text can lack a glyph here: matplotlib measures it, the reader's fonts draw it
        warnings.filterwarnings("ignore", message=r"Glyph \d+|Matplotlib currently does not")
        yield


def style_axes(axes: Axes, x_label: str, y_label: str) -> None:
    """Make the axes of a curve as quiet as the page: two thin lines, muted numbers, no ticks."""
    axes.set_facecolor(PAPER)
    axes.set_xlabel(x_label, color=MUTED, fontsize=9)
    axes.set_ylabel(y_label, color=MUTED, fontsize=9)
    axes.tick_params(length=0, labelcolor=MUTED, labelsize=8.5)
    for side, spine in axes.spines.items():
        spine.set(color=LEADING, linewidth=1.0, visible=side in ("left", "bottom"))


def frame_axes(axes: Axes) -> None:
    """Put axes that carry labels into the same frame as pictures."""
    axes.set_facecolor(PAPER)
    axes.tick_params(color=LEADING, labelcolor=MUTED)
    for spine in axes.spines.values():
        spine.set(color=LEADING, linewidth=1.5)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=INK, fontsize=11)
