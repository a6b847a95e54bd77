"""Figures of the inside of a network: patches, all heads, rollout, logit lens, norms and angles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vitral.drawing.figure import Canvas, Kind, style, style_axes
from vitral.drawing.palette import AMOUNTS, COBALT, EMERALD, INK, MUTED, RUBY
from vitral.drawing.pictures import draw_grid, mosaic, overlay, png, to_colours, upscale
from vitral.explanation.figures import panels
from vitral.explanation.findings import Findings, Internals

_TILE = 72  # pixels of one map among those of all heads
_BETWEEN = 6  # pixels of the lines between them
_CRISP = 224  # pixels of the shorter side from which patches and grid lines are drawn crisply
_NUMBERED = 40  # pixels that a patch needs to carry its number
_BARS = 0.34  # inches of one layer of the logit lens


@style()
def patches(findings: Findings) -> bytes:
    """Draw the patches as the model reads them, numbered in raster order from 1; PNG."""
    rows, columns = findings.grid
    size = findings.picture.shape[:2]
    side = min(size[0] / rows, size[1] / columns)
    large = upscale(findings.picture, round(min(size) * max(1.0, _NUMBERED / side)))
    height, width = large.shape[:2]
    scale = min(14.0, max(5.0, 0.6 * max(rows, columns))) / max(height, width)  # inches per pixel
    canvas = Canvas(width * scale + 0.4, height * scale + 0.95)
    note = f"{rows} × {columns} patches of {size[0] / rows:.3g} × {size[1] / columns:.3g} pixels"
    canvas.heading(0.2, 0, "The patches in their order", f"{note}; the number is the patch's place")
    axes = canvas.picture(
        draw_grid(large, findings.grid), 0.2, 0.75, (width * scale, height * scale)
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
    return canvas.to_bytes("png")


@style()
def attention_maps(findings: Findings, internals: Internals, kind: Kind) -> bytes:
    """Draw attention from the query in every layer (rows) and head (columns)."""
    layers, heads = internals.attention_maps.shape[:2]
    rows, columns = findings.grid
    tile = (_TILE * rows // max(rows, columns), _TILE * columns // max(rows, columns))
    row = np.arange(tile[0]) * rows // tile[0]
    column = np.arange(tile[1]) * columns // tile[1]
    maps = internals.attention_maps.reshape(-1, rows, columns)
    picture = mosaic([to_colours(one)[row][:, column] for one in maps], heads, _BETWEEN)
    step = (tile[0] + _BETWEEN, tile[1] + _BETWEEN)
    width = max(5.2, heads * 0.85)
    height = width * picture.shape[0] / picture.shape[1]
    canvas = Canvas(width + 1.2, height + 1.4)
    note = f"{panels.attention_of(findings)}; each pane from its least (dark) to its most (bright)"
    canvas.heading(0.2, 0, "Every head of every layer", note)
    axes = canvas.picture(picture, 0.9, 1.05, (width, height))
    axes.set_xticks((np.arange(heads) + 0.5) * step[1], [str(h + 1) for h in range(heads)])
    axes.set_yticks((np.arange(layers) + 0.5) * step[0], [str(i + 1) for i in range(layers)])
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("head", color=MUTED)
    axes.set_ylabel("layer", color=MUTED)
    axes.tick_params(length=0, labelcolor=MUTED, labelsize=9)
    return canvas.to_bytes(kind)


@style()
def rollouts(findings: Findings, internals: Internals) -> bytes:
    """Draw attention rollout with the skip connections and without, beside the picture; PNG."""
    large = upscale(findings.picture, 448)
    shape = large.shape[0] / large.shape[1]
    canvas = Canvas(11.2, 3.4 * shape + 0.95)
    with_residual = overlay(large, internals.rollout_heatmap)
    without = overlay(large, internals.rollout_no_residual_heatmap)
    parts = (
        ("What the model received", "", large),
        ("Rollout with skips", "0.5 A + 0.5 I in each layer", with_residual),
        ("Rollout without", "A alone, as in the paper's text", without),
    )
    for i, (title, note, picture) in enumerate(parts):
        left = 0.2 + i * 3.65
        canvas.heading(left, 0, title, note)
        canvas.picture(picture, left, 0.75, (3.4, 3.4 * shape))
    return canvas.to_bytes("png")


def overlay_png(findings: Findings, heatmap: NDArray[np.float32]) -> bytes:
    """Draw the picture under a heatmap, large enough for the lines of the grid; PNG."""
    return png(overlay(upscale(findings.picture, _CRISP), heatmap))


@style()
def logit_lens(findings: Findings, internals: Internals, kind: Kind) -> bytes:
    """Draw the logit lens: what the head says of the tokens after every layer."""
    layers = len(internals.layer_logits)
    canvas = Canvas(9.0, 1.5 + layers * _BARS)
    note = "the head read after every layer; dot: the class that is explained"
    canvas.heading(0.2, 0, "When it knew", note)
    axes = canvas.axes(1.0, 0.8, 7.7, layers * _BARS)
    panels.logit_lens(axes, findings, internals, kind)
    return canvas.to_bytes(kind)


@style()
def norms_and_cosines(findings: Findings, internals: Internals, kind: Kind) -> bytes:
    """Draw the norms of q, k and v through the layers, and the angles of one layer's q and k."""
    canvas = Canvas(11.6, 8.3)
    depth = internals.norms.shape[1]
    places = np.arange(1, depth + 1)
    parts = (("queries", COBALT), ("keys", RUBY), ("values", EMERALD))
    for i, (name, colour) in enumerate(parts):
        left = 0.75 + i * 3.75
        canvas.heading(left - 0.35, 0, f"Length of {name}", "line: mean; dots: heads")
        axes = canvas.axes(left, 0.85, 3.0, 2.3)
        each = internals.norms[i].mean(axis=-1)
        axes.plot(places, each, ".", color=colour, alpha=0.45)
        axes.plot(places, each.mean(axis=1), color=colour)
        axes.set(ylim=(0, None))
        axes.set_xticks(places[:: max(1, depth // 8)])
        style_axes(axes, "layer", "Euclidean norm")
    _cosines(canvas, internals)
    _patch_norms(canvas, findings, internals)
    return canvas.to_bytes(kind)


def _cosines(canvas: Canvas, internals: Internals) -> None:
    note = f"cosine of q and k in layer {internals.layer}, mean of its heads"
    canvas.heading(0.4, 3.75, "Which patches ask for which", note)
    axes = canvas.axes(0.95, 4.65, 3.2, 3.2)
    limit = max(float(np.abs(internals.cosines).max()), 1e-6)
    edge = len(internals.cosines) + 0.5  # patches count from 1
    span = (0.5, edge, edge, 0.5)
    shown = axes.imshow(internals.cosines, cmap=AMOUNTS, vmin=-limit, vmax=limit, extent=span)
    style_axes(axes, "key: patch in raster order", "query")
    bar = canvas.axes(4.3, 4.65, 0.15, 3.2)
    canvas.figure.colorbar(shown, cax=bar)
    bar.tick_params(length=0, labelsize=8, labelcolor=MUTED)


def _patch_norms(canvas: Canvas, findings: Findings, internals: Internals) -> None:
    height, width = findings.picture.shape[:2]
    tall = min(3.2, 1.9 * height / width)
    patches = findings.grid[0] * findings.grid[1]
    for i, (name, norms) in enumerate(zip("qkv", internals.norms, strict=True)):
        left = 5.2 + i * 2.1
        note = f"layer {internals.layer}, mean of heads"
        canvas.heading(left, 3.75, f"|{name}| of each patch", note)
        amounts = norms[internals.layer - 1].mean(axis=0)[-patches:].reshape(findings.grid)
        picture = draw_grid(upscale(to_colours(amounts), 150), findings.grid)
        canvas.picture(picture, left, 4.65, (1.9, tall))
        span = f"{float(amounts.min()):.3g} (dark) to {float(amounts.max()):.3g}"
        canvas.text(left, 4.65 + tall + 0.2, span)
