"""Pictures as arrays: a heatmap laid over an image, grid lines between patches, mosaics of tiles.

A picture is uint8 (H, W, 3). The look is that of a stained-glass window: patches are panes and the
lines between them are leading. Nothing here knows about models.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitral.drawing.palette import LEADING, amounts, rgb
from vitral.errors import UsageError

Picture = NDArray[np.uint8]

# Coloured glass multiplies the light behind it, so a picture stays legible under its colour; some
# of the pane's own colour always shows, so that a dark thing the model looked at is lit as well.
_GLASS = (0.5, 1.35)  # brightness of the pane before black and before white
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_CLEAR = 0.35  # share of the picture's own colours that comes through


def overlay(image: Picture, heatmap: NDArray[np.floating]) -> Picture:
    """Tint every patch of a picture by its amount and draw the grid between the patches.

    Args:
        image: uint8 (H, W, 3).
        heatmap: (rows, columns), one amount per patch; lowest to highest spans the colour map.

    Returns uint8 (H, W, 3).
    """
    _check(image, heatmap)
    height, width = image.shape[:2]
    rows, columns = heatmap.shape
    row = np.arange(height) * rows // height
    column = np.arange(width) * columns // width
    level = to_unit_range(heatmap)
    lit = level[row][:, column][..., None]
    pane = amounts()(level)[..., :3][row][:, column]
    behind = (image @ _LUMA / 255)[..., None]
    glass = pane * (_GLASS[0] + (_GLASS[1] - _GLASS[0]) * behind)
    glass = (1 - _CLEAR) * glass + _CLEAR * (0.5 + 0.6 * lit) * image / 255
    return draw_grid(to_uint8(glass), (rows, columns))


def draw_grid(image: Picture, grid: tuple[int, int]) -> Picture:
    """Draw lines between the patches of a (rows, columns) grid, and around it, over a picture.

    A line is a twelfth of a patch wide; patches under four pixels get none.
    """
    result = image.copy()
    patch = min(image.shape[0] / grid[0], image.shape[1] / grid[1])
    if patch < 4:
        return result
    thickness = max(1, round(patch / 12))
    colour = to_uint8(rgb(LEADING))
    for axis, count in enumerate(grid):
        side = image.shape[axis]
        for i in range(count + 1):
            # the outer line is as wide as the inner ones, and all of it inside the picture
            middle = min(max(i * side / count, thickness / 2), side - thickness / 2)
            start = round(middle - thickness / 2)
            line = (slice(None),) * axis + (slice(start, start + thickness),)
            result[line] = colour
    return result


def mosaic(tiles: Sequence[Picture], columns: int, gap: int) -> Picture:
    """Lay tiles of one size out in rows, with `gap` pixels of leading between and around them."""
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    size = (rows * (height + gap) + gap, columns * (width + gap) + gap)
    result = np.empty((*size, 3), np.uint8)
    result[:] = to_uint8(rgb(LEADING))
    for i, tile in enumerate(tiles):
        top = i // columns * (height + gap) + gap
        left = i % columns * (width + gap) + gap
        result[top : top + height, left : left + width] = tile
    return result


def upscale(image: Picture, smallest: int) -> Picture:
    """Repeat pixels until the shorter side has at least `smallest` of them."""
    times = max(1, -(-smallest // min(image.shape[:2])))
    return image.repeat(times, axis=0).repeat(times, axis=1)


def to_unit_range(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Stretch amounts to [0, 1]; equal ones all become 0.5 rather than amplified rounding."""
    levels = np.asarray(values, dtype=np.float64)
    low = float(levels.min())
    high = float(levels.max())
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        return np.full(levels.shape, 0.5)
    return (levels - low) / (high - low)


def to_uint8(colours: NDArray[np.float64]) -> Picture:
    """Round colours in [0, 1] to uint8."""
    return np.round(np.clip(colours, 0, 1) * 255).astype(np.uint8)


def to_colours(values: NDArray[np.floating]) -> Picture:
    """Paint amounts (rows, columns) with the colour map, lowest to highest, a pixel for each."""
    return to_uint8(amounts()(to_unit_range(values))[..., :3])


def png(image: Picture) -> bytes:
    """Encode a picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _check(image: Picture, heatmap: NDArray[np.floating]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UsageError(
            f"A picture is uint8 (height, width, 3), not {image.dtype} {tuple(image.shape)}."
        )
    if heatmap.ndim != 2 or heatmap.shape[0] > image.shape[0] or heatmap.shape[1] > image.shape[1]:
        raise UsageError(
            f"A map of shape {tuple(heatmap.shape)} does not fit a picture of "
            f"{image.shape[0]}×{image.shape[1]} pixels; it is (rows, columns) of patches."
        )
    if not np.isfinite(heatmap).all():
        raise UsageError("The map has values that are not finite; the weights are damaged.")
