"""Paper to draw on, addressed in inches from its upper left corner, in the house's look."""

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
    from matplotlib.figure import Figure

Kind = Literal["png", "svg"]


class Sheet:
    """A matplotlib figure of (width, height) inches; draw on it within `house()`."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure  # noqa: PLC0415  0.3 s that only drawing should pay

        self.figure = Figure(figsize=(width, height), dpi=120, facecolor=PAPER)
        self.width, self.height = width, height

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Empty axes."""
        bottom = (self.height - top - height) / self.height
        return self.figure.add_axes(
            (left / self.width, bottom, width / self.width, height / self.height)
        )

    def heading(self, left: float, top: float, title: str, note: str) -> None:
        """A title and a note under it, within 0.72 inches from `top`."""
        self.write(left, top + 0.38, title, size=13, weight="bold", colour=INK)
        self.write(left, top + 0.60, note, size=9.5)

    def write(
        self,
        left: float,
        down: float,
        text: str,
        *,
        size: float = 8.5,
        weight: str = "normal",
        colour: str = MUTED,
    ) -> None:
        """One line of text that stands on the height `down`."""
        place = (left / self.width, 1 - down / self.height)
        self.figure.text(*place, text, fontsize=size, weight=weight, color=colour)

    def picture(self, picture: Picture, left: float, top: float, size: tuple[float, float]) -> Axes:
        """A picture of `size` (width, height) inches in leading."""
        axes = self.axes(left, top, *size)
        axes.imshow(picture, interpolation="antialiased")
        axes.set(xticks=[], yticks=[], anchor="NW")
        for spine in axes.spines.values():
            spine.set(color=LEADING, linewidth=1.5)
        return axes

    def encoded(self, kind: Kind) -> bytes:
        """See `encoded`."""
        return encoded(self.figure, kind)


def encoded(figure: Figure, kind: Kind) -> bytes:
    """The bytes of a PNG or SVG file; the same drawing gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    if kind == "png":
        return buffer.getvalue()
    family = b"font-family: " + FONT_STACK.encode()
    return re.sub(rb'font-family: [^;"]*', family, buffer.getvalue())


@contextlib.contextmanager
def house() -> Iterator[None]:
    """The fonts and colours of the house, for what is drawn inside."""
    import matplotlib  # noqa: PLC0415  as above

    style: dict[Any, Any] = {
        "font.family": list(fonts.installed()),
        "svg.fonttype": "none",
        "svg.hashsalt": "vitral",
        "text.color": INK,
        "text.parse_math": False,
    }
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # only SVG text can lack a glyph here: matplotlib measures it, the reader's fonts draw it
        warnings.filterwarnings("ignore", message=r"Glyph \d+|Matplotlib currently does not")
        yield


def frame(axes: Axes) -> None:
    """Axes as quiet as the page: two lines, muted numbers, paper behind."""
    axes.set_facecolor(PAPER)
    axes.tick_params(length=0, labelcolor=MUTED, labelsize=8.5)
    for side, spine in axes.spines.items():
        spine.set(color=LEADING, linewidth=1.0, visible=side in ("left", "bottom"))
