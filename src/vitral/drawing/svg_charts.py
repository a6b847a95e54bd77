"""Line charts as SVG written by hand.

They stand inside the page, so they take its fonts and its colours (light and dark) from the style
sheet, keep text as text, and weigh a tenth of a plotting library's output.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

Point = tuple[float, float]

_WIDTH = 400  # of the view box
_HEIGHT = 230
_LEFT = 48  # margins around the axes
_RIGHT = 12
_TOP = 12
_BOTTOM = 36
_MAX_POINTS = 400


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One line of a chart.

    Attributes:
        name: for the tip of its last point.
        pane: its colour, a name of report/style.PANE_NAMES.
        points: (x, y) from left to right.
        band: (x, low, high), the interval of the points; drawn behind the line.
    """

    name: str
    pane: str
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = ()


def line_chart(
    series: Sequence[Series],
    x_label: str,
    title: str,
    format_y: Callable[[float], str] = "{:g}".format,
    from_zero: bool = False,
) -> Markup:
    """Draw series as an <svg>; nothing when no series has a point.

    Args:
        series: lines; those without points are left out.
        x_label: what the x axis counts.
        title: read out to those who do not see the chart.
        format_y: the text of a value on the y axis.
        from_zero: whether the y axis begins at zero.
    """
    series = [line for line in series if line.points]
    if not series:
        return Markup("")
    xs = [x for line in series for x, _ in line.points]
    ys = [y for line in series for _, y in line.points]
    ys += [y for line in series for _, *bounds in line.band for y in bounds]
    x_ticks = ticks(0 if min(xs) >= 0 else min(xs), max(xs), 5)
    y_ticks = ticks(0 if from_zero else min(ys), max(ys), 4)
    end = x_ticks[-1] if x_ticks[-1] <= 1.03 * max(xs) else max(xs)
    x_span = (min([x_ticks[0], *xs]), end)
    y_span = (min([y_ticks[0], *ys]), max([y_ticks[-1], *ys]))
    scale = _Scale(x_span, y_span)
    parts = [_axes(scale, x_ticks, y_ticks, x_label, format_y)]
    parts += [_line(scale, line, format_y) for line in series]
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(_WIDTH, _HEIGHT, title, Markup("").join(parts))


def ticks(low: float, high: float, about: int) -> list[float]:
    """Choose round numbers (1, 2, 2.5 or 5 times a power of ten apart) that enclose [low, high]."""
    if high <= low:
        margin = abs(low) * 0.1 or 1.0
        low = low - margin
        high = high + margin
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class _Scale:
    """The way from values to the chart's coordinates; each span is (lowest, highest)."""

    x_span: Point
    y_span: Point

    def x(self, value: float) -> float:
        return round(_LEFT + _share(value, self.x_span) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = _share(value, self.y_span)
        return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)


def _share(value: float, span: Point) -> float:
    low, high = span
    return (value - low) / (high - low) if high > low else 0.5


def _axes(
    scale: _Scale,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_label: str,
    format_y: Callable[[float], str],
) -> Markup:
    right = _WIDTH - _RIGHT
    bottom = _HEIGHT - _BOTTOM
    parts = [grid_line((_LEFT, right), scale.y(y), format_y(y)) for y in y_ticks]
    parts += [text("x", scale.x(x), bottom + 16, f"{x:g}") for x in x_ticks if x <= scale.x_span[1]]
    parts.append(axis((_LEFT, right), bottom))
    parts.append(text("x", (_LEFT + right) / 2, _HEIGHT - 4, x_label))
    return Markup("").join(parts)


def grid_line(across: Point, y: float, label: str) -> Markup:
    """Draw a line of the grid from left to right, with its value at the left."""
    line = Markup('<path class="grid" d="M{} {}H{}"/>').format(across[0], y, across[1])
    return line + text("y", across[0] - 6, y + 4, label)


def axis(across: Point, y: float) -> Markup:
    """Draw an axis from left to right."""
    return Markup('<path class="axis" d="M{} {}H{}"/>').format(across[0], y, across[1])


def text(kind: str, x: float, y: float, words: str) -> Markup:
    """Write words below an axis (kind "x", centred) or left of one (kind "y")."""
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, x, y, words)


def _line(scale: _Scale, line: Series, format_y: Callable[[float], str]) -> Markup:
    points = thinned(line.points)
    drawn = []
    if len(line.band) > 1:
        upper = [f"{scale.x(x)} {scale.y(high)}" for x, _, high in line.band]
        lower = [f"{scale.x(x)} {scale.y(low)}" for x, low, _ in reversed(line.band)]
        path = "M" + "L".join(upper + lower) + "Z"
        drawn.append(Markup('<path class="band {}" d="{}"/>').format(line.pane, path))
    for x, low, high in line.band if len(line.band) == 1 else ():
        whisker = f"M{scale.x(x)} {scale.y(low)}L{scale.x(x)} {scale.y(high)}"
        drawn.append(Markup('<path class="line {}" d="{}"/>').format(line.pane, whisker))
    path = "M" + "L".join(f"{scale.x(x)} {scale.y(y)}" for x, y in points)
    drawn.append(Markup('<path class="line {}" d="{}"/>').format(line.pane, path))
    x, y = points[-1]
    tip = f"{line.name}: {format_y(y)}"
    drawn.append(
        Markup('<circle class="dot {}" cx="{}" cy="{}" r="3.5"><title>{}</title></circle>').format(
            line.pane, scale.x(x), scale.y(y), tip
        )
    )
    return Markup("").join(drawn)


def thinned(points: Sequence[Point], most: int = _MAX_POINTS) -> list[Point]:
    """Average equal stretches down to `most` points; the last point is kept as it is."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / (most - 1))
    groups = [points[i : i + size] for i in range(0, len(points) - 1, size)]
    means = [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]
    return [*means, points[-1]]
