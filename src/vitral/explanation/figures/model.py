"""The model's own figures: filters, position similarity, attention distances, rollout.

    save(Path("figures/filters"), filters(components, shares, "the 192 filters ..."))

Each function draws a Canvas from numbers alone (of model_analysis); `save` writes it as
PNG and as SVG with text kept as text. Laid out in inches, because grids have many shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from vitral.drawing.figure import Canvas, Kind, frame_axes, style
from vitral.drawing.palette import AMOUNTS, COBALT, INK, LEADING, MUTED, PAPER, RUBY, amounts
from vitral.drawing.pictures import Picture, mosaic, overlay, to_uint8, to_unit_range, upscale
from vitral.storage import files

Array = NDArray[Any]

_MARGIN = 0.4
_HEADING = 0.95
_MAX_TILES = 8  # along a side of the figure of positions: more could not be told apart
_CRISP = 224  # pixels of a picture's shorter side, for crisp leading


def save(stem: Path, canvas: Canvas) -> list[Path]:
    """Write stem.png and stem.svg; raises MachineError when they cannot be written."""
    paths = {kind: stem.with_name(f"{stem.name}.{kind}") for kind in get_args(Kind)}
    for kind, path in paths.items():
        files.write_bytes(path, canvas.to_bytes(kind))
    return list(paths.values())


@style()
def filters(components: Array, shares: Array, filters_of: str) -> Canvas:
    """Draw principal components of the filters as tiles (figure 7 left of the paper).

    Args:
        components: (count, rows, columns, channels); each is stretched to its own full range.
        shares: (count,) of the variance.
        filters_of: whose components they are: "the 768 filters of the patch projection".
    """
    count, rows, columns, _ = components.shape
    across = min(7, count)
    down = -(-count // across)
    side = 1.15  # inches of a tile
    gap = 0.38  # below it, for its caption
    tall = side * rows / columns
    width = max(2 * _MARGIN + across * (side + 0.12), 7.0)
    note = f"{rows} × {columns} pixels, each over its own range; below, its share of the variance"
    title = f"The first {count} principal components of {filters_of}"
    canvas = _with_heading(width, _HEADING + down * (tall + gap) + 0.2, title, note)
    for i, (component, share) in enumerate(zip(components, shares, strict=True)):
        row, column = divmod(i, across)
        place = (_MARGIN + column * (side + 0.12), _HEADING + row * (tall + gap), side, tall)
        axes = canvas.axes(*place)
        frame_axes(axes)
        axes.imshow(upscale(_colours(component), 112), interpolation="none")
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(f"{i + 1} · {_percent(share)}", fontsize=9, color=MUTED, labelpad=3)
    return canvas


@style()
def positions(similarity: Array) -> Canvas:
    """Draw position similarity, one tile per patch (figure 7 centre of the paper).

    Args:
        similarity: (rows, columns, rows, columns) in [-1, 1]. Of more than 8 rows or columns of
            patches, 8 evenly spaced ones are shown; each tile always holds all patches.
    """
    from matplotlib.cm import ScalarMappable  # noqa: PLC0415
    from matplotlib.colors import Normalize  # noqa: PLC0415

    grid = similarity.shape[:2]
    chosen = [_spaced(n) for n in grid]
    span = Normalize(-1, 1)
    times = max(1, round(96 / max(grid)))  # pixels of a patch
    gap = max(2, times * max(grid) // 16)
    colours = to_uint8(amounts()(span(similarity))[..., :3])
    tiles = [
        colours[row, column].repeat(times, axis=0).repeat(times, axis=1)
        for row in chosen[0]
        for column in chosen[1]
    ]
    picture = mosaic(tiles, len(chosen[1]), gap)
    step = (grid[0] * times + gap, grid[1] * times + gap)  # from one tile to the next
    shape = min(max(picture.shape[0] / picture.shape[1], 0.3), 2.5)
    wide = 6.0 if shape <= 1 else 6.0 / shape
    note = "tile: one patch's position; in it: its similarity to the position of every patch"
    height = _HEADING + wide * shape + 0.85
    canvas = _with_heading(max(wide + 2.6, 7.0), height, "Position embedding similarity", note)
    axes = canvas.axes(_MARGIN + 0.5, _HEADING, wide, wide * shape)
    frame_axes(axes)
    axes.imshow(picture, interpolation="none", aspect="auto")
    axes.set(xlabel="Input patch column", ylabel="Input patch row")
    for axis, numbers, side in ((axes.yaxis, chosen[0], step[0]), (axes.xaxis, chosen[1], step[1])):
        axis.set_ticks([gap + (i + 0.5) * side - gap / 2 for i in range(len(numbers))])
        axis.set_ticklabels([str(number + 1) for number in numbers])
    axes.tick_params(length=0)
    bar = canvas.axes(_MARGIN + 0.5 + wide + 0.18, _HEADING, 0.17, wide * shape)
    canvas.figure.colorbar(ScalarMappable(span, AMOUNTS), cax=bar, ticks=[-1, -0.5, 0, 0.5, 1])
    frame_axes(bar)
    bar.set_ylabel("Cosine similarity")
    bar.tick_params(length=0)
    return canvas


@style()
def distances(pixels: Array, uniform: float, images: int) -> Canvas:
    """Draw the mean attention distance of every head (figures 7 right and 11 of the paper).

    Args:
        pixels: (blocks, heads).
        uniform: the distance of attention that is the same everywhere, drawn as an anchor.
        images: how many were averaged.
    """
    blocks, heads = pixels.shape
    counted = "1 image" if images == 1 else f"{images:,} images"
    note = f"one dot per head, {heads} in each block; average of {counted}"
    canvas = _with_heading(7.6, 5.4, "Mean attention distance", note)
    axes = canvas.axes(_MARGIN + 0.55, _HEADING, 6.35, 3.75)
    frame_axes(axes)
    x = np.arange(1, blocks + 1).repeat(heads)
    axes.scatter(x, pixels.ravel(), 42, COBALT, alpha=0.75, edgecolors=PAPER, linewidths=0.8)
    axes.axhline(uniform, color=RUBY, linestyle=(0, (5, 3)), linewidth=1.5)
    label = (
        f"– – attention spread evenly: {uniform:.2f} pixels"  # above the axes: dots lie anywhere
    )
    axes.text(1, 1.01, label, transform=axes.transAxes, ha="right", color=RUBY, fontsize=10)
    top = 1.12 * max(uniform, float(pixels.max()), 1e-9)
    axes.set(xlim=(0.4, blocks + 0.6), ylim=(0, top))
    axes.set(xlabel="Network depth (block)", ylabel="Mean attention distance (pixels)")
    step = -(-blocks // 12)
    axes.set_xticks(range(1, blocks + 1, step))
    axes.grid(axis="y", color=LEADING, alpha=0.12)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return canvas


@style()
def rollouts(pictures: Sequence[Picture] | NDArray[np.uint8], maps: Array) -> Canvas:
    """Draw attention rollout of some images, with and without the residual (figures 6 and 14).

    Args:
        pictures: n pictures, uint8 (H, W, 3).
        maps: (n, 2, rows, columns), with and without.
    """
    height, width = pictures[0].shape[:2]
    side = 1.9
    gap = 0.12
    left = _MARGIN + 0.35
    tall = side * min(max(height / width, 0.3), 1.6)
    wide = max(left + len(pictures) * (side + gap) + _MARGIN, 7.0)
    note = "from the output to the patches; each map over its own range, dark to bright"
    canvas = _with_heading(wide, _HEADING + 3 * (tall + gap) + 0.25, "Attention rollout", note)
    for column, (picture, pair) in enumerate(zip(pictures, maps, strict=True)):
        large = upscale(picture, _CRISP)
        rows = ("input", large), ("with residual", pair[0]), ("without", pair[1])
        for row, (name, content) in enumerate(rows):
            place = (left + column * (side + gap), _HEADING + row * (tall + gap))
            axes = canvas.axes(*place, side, tall)
            frame_axes(axes)
            shown = overlay(large, content) if row else large
            axes.imshow(shown, interpolation="antialiased", aspect="auto")
            axes.set(xticks=[], yticks=[])
            if column == 0:
                axes.set_ylabel(name, fontsize=10)
    return canvas


def _with_heading(width: float, height: float, title: str, note: str) -> Canvas:
    canvas = Canvas(width, height)
    canvas.text(_MARGIN, 0.42, title, size=13, weight="bold", colour=INK)
    canvas.text(_MARGIN, 0.68, note, size=9.5)
    return canvas


def _colours(component: Array) -> Picture:
    """uint8 (rows, columns, 3): a component over its whole range; one channel is grey."""
    channels = component if component.shape[-1] >= 3 else component[..., :1].repeat(3, axis=-1)
    return to_uint8(to_unit_range(channels[..., :3]))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.01 else f"{100 * share:.2f} %"


def _spaced(count: int) -> list[int]:
    """All of few, or eight evenly spaced from the first to the last."""
    return sorted(set(np.linspace(0, count - 1, min(count, _MAX_TILES)).round().astype(int)))
