"""Figures of what happens inside: the wall of layers and heads, patches, lens, lengths, angles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vitral.drawing.figure import Canvas, Kind, style, style_axes
from vitral.drawing.palette import AMOUNTS, COBALT, EMERALD, INK, MUTED, RUBY
from vitral.drawing.pictures import draw_grid, mosaic, overlay, png, to_colours, upscale
from vitral.explanation.figures import panels

if TYPE_CHECKING:
    from vitral.explanation.explain import Explanation, Inside

_TILE, _BETWEEN = 72, 6  # pixels of one pane of the wall, and of the leading around it
_NUMBERED = 40  # pixels that a patch needs to carry its number
_BARS = 0.34  # inches of one layer of the lens


@style()
def patches(explanation: Explanation) -> bytes:
    """The patches as the model reads them, numbered in raster order from 1; PNG."""
    rows, columns = explanation.grid
    size = explanation.picture.shape[:2]
    side = min(size[0] / rows, size[1] / columns)
    large = upscale(explanation.picture, round(min(size) * max(1.0, _NUMBERED / side)))
    height, width = large.shape[:2]
    scale = min(14.0, max(5.0, 0.6 * max(rows, columns))) / max(height, width)  # inches per pixel
    sheet = Canvas(width * scale + 0.4, height * scale + 0.95)
    told = f"{rows} × {columns} patches of {size[0] / rows:.3g} × {size[1] / columns:.3g} pixels"
    sheet.heading(0.2, 0, "The patches in their order", f"{told}; the number is the patch's place")
    axes = sheet.picture(
        draw_grid(large, explanation.grid), 0.2, 0.75, (width * scale, height * scale)
    )
    for place in range(rows * columns):
        row, column = divmod(place, columns)
        axes.text(
            (column + 0.12) * width / columns,
            (row + 0.12) * height / rows,
            str(place + 1),
            fontsize=min(11.0, 72 * 0.3 * scale * width / columns),
            color="white",
            ha="left",
            va="top",
            bbox={"facecolor": INK, "alpha": 0.7, "linewidth": 0, "pad": 1.2},
        )
    return sheet.to_bytes("png")


@style()
def wall(explanation: Explanation, inside: Inside, kind: Kind) -> bytes:
    """Attention from the query in every layer (rows) and head (columns)."""
    layers, heads = inside.walls.shape[:2]
    rows, columns = explanation.grid
    tile = (_TILE * rows // max(rows, columns), _TILE * columns // max(rows, columns))
    row = np.arange(tile[0]) * rows // tile[0]
    column = np.arange(tile[1]) * columns // tile[1]
    tiles = [to_colours(heat)[row][:, column] for heat in inside.walls.reshape(-1, rows, columns)]
    picture = mosaic(tiles, heads, _BETWEEN)
    step = (tile[0] + _BETWEEN, tile[1] + _BETWEEN)
    width = max(5.2, heads * 0.85)
    height = width * picture.shape[0] / picture.shape[1]
    sheet = Canvas(width + 1.2, height + 1.4)
    note = f"{panels.asked(explanation)}; each pane from its least (dark) to its most (bright)"
    sheet.heading(0.2, 0, "Every head of every layer", note)
    axes = sheet.picture(picture, 0.9, 1.05, (width, height))
    axes.set_xticks([(h + 0.5) * step[1] for h in range(heads)], [str(h + 1) for h in range(heads)])
    axes.set_yticks(
        [(i + 0.5) * step[0] for i in range(layers)], [str(i + 1) for i in range(layers)]
    )
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("head", color=MUTED)
    axes.set_ylabel("layer", color=MUTED)
    axes.tick_params(length=0, labelcolor=MUTED, labelsize=9)
    return sheet.to_bytes(kind)


@style()
def rollouts(explanation: Explanation, inside: Inside) -> bytes:
    """Attention rollout with the skip connections and without, beside the picture; PNG."""
    large = upscale(explanation.picture, 448)
    shape = large.shape[0] / large.shape[1]
    sheet = Canvas(11.2, 3.4 * shape + 0.95)
    panels = (
        ("What the model received", "", large),
        ("Rollout with skips", "0.5 A + 0.5 I in each layer", overlay(large, inside.rollout_heat)),
        ("Rollout without", "A alone, as in the paper's text", overlay(large, inside.plain_heat)),
    )
    for i, (title, note, picture) in enumerate(panels):
        left = 0.2 + i * 3.65
        sheet.heading(left, 0, title, note)
        sheet.picture(picture, left, 0.75, (3.4, 3.4 * shape))
    return sheet.to_bytes("png")


def window(explanation: Explanation, heat: NDArray[np.float32]) -> bytes:
    """The picture lit by a map; PNG."""
    return png(overlay(upscale(explanation.picture, 224), heat))


@style()
def knowledge(explanation: Explanation, inside: Inside, kind: Kind) -> bytes:
    """The logit lens: what the head says of the tokens after every layer."""
    layers = len(inside.lens)
    sheet = Canvas(9.0, 1.5 + layers * _BARS)
    note = "the head read after every layer; dot: the class that is explained"
    sheet.heading(0.2, 0, "When it knew", note)
    axes = sheet.axes(1.0, 0.8, 7.7, layers * _BARS)
    panels.lens(axes, explanation, inside, kind)
    return sheet.to_bytes(kind)


@style()
def tokens(explanation: Explanation, inside: Inside, kind: Kind) -> bytes:
    """Lengths of q, k and v through the layers, and the angles of one layer's q and k."""
    sheet = Canvas(11.6, 8.3)
    depth = inside.lengths.shape[1]
    places = np.arange(1, depth + 1)
    parts = zip(("queries", "keys", "values"), (COBALT, RUBY, EMERALD), inside.lengths, strict=True)
    for i, (name, colour, lengths) in enumerate(parts):
        left = 0.75 + i * 3.75
        sheet.heading(left - 0.35, 0, f"Length of {name}", "line: mean; dots: heads")
        axes = sheet.axes(left, 0.85, 3.0, 2.3)
        each = lengths.mean(axis=-1)
        axes.plot(places, each, ".", color=colour, alpha=0.45)
        axes.plot(places, each.mean(axis=1), color=colour)
        axes.set(ylim=(0, None))
        axes.set_xticks(places[:: max(1, depth // 8)])
        axes.set_xlabel("layer", color=MUTED, fontsize=9)
        axes.set_ylabel("Euclidean norm", color=MUTED, fontsize=9)
        style_axes(axes)
    _angles(sheet, explanation, inside)
    return sheet.to_bytes(kind)


def _angles(sheet: Canvas, explanation: Explanation, inside: Inside) -> None:
    note = f"cosine of q and k in layer {inside.layer}, mean of its heads"
    sheet.heading(0.4, 3.75, "Which patches ask for which", note)
    axes = sheet.axes(0.95, 4.65, 3.2, 3.2)
    limit = max(float(np.abs(inside.cosines).max()), 1e-6)
    edge = len(inside.cosines) + 0.5  # patches count from 1
    span = (0.5, edge, edge, 0.5)
    shown = axes.imshow(inside.cosines, cmap=AMOUNTS, vmin=-limit, vmax=limit, extent=span)
    axes.set_xlabel("key: patch in raster order", color=MUTED, fontsize=9)
    axes.set_ylabel("query", color=MUTED, fontsize=9)
    style_axes(axes)
    bar = sheet.axes(4.3, 4.65, 0.15, 3.2)
    sheet.figure.colorbar(shown, cax=bar)
    bar.tick_params(length=0, labelsize=8, labelcolor=MUTED)
    for i, (name, lengths) in enumerate(zip("qkv", inside.lengths, strict=True)):
        left = 5.2 + i * 2.1
        of_patches = lengths[inside.layer - 1].mean(axis=0)[-inside.cosines.shape[0] :]
        sheet.heading(left, 3.75, f"|{name}| of each patch", f"layer {inside.layer}, mean of heads")
        heat = of_patches.reshape(explanation.grid)
        pane = upscale(to_colours(heat), 150)
        tall = min(3.2, 1.9 * explanation.picture.shape[0] / explanation.picture.shape[1])
        sheet.picture(draw_grid(pane, explanation.grid), left, 4.65, (1.9, tall))
        told = f"{float(heat.min()):.3g} (dark) to {float(heat.max()):.3g}"
        sheet.text(left, 4.65 + tall + 0.2, told)
