"""A picture as a window: patches are panes of glass between dark leading.

Arrays are uint8 (H, W, 3); nothing here knows about models.
"""

from __future__ import annotations

import io

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


def overlay(image: Picture, heat: NDArray[np.floating]) -> Picture:
    """Tint every patch of a picture by its amount and lead it in.

    Args:
        image: uint8 (H, W, 3).
        heat: (rows, columns), one amount per patch; lowest to highest spans the colour map.

    Returns uint8 (H, W, 3).
    """
    _check(image, heat)
    height, width = image.shape[:2]
    rows, columns = heat.shape
    row = np.arange(height) * rows // height
    column = np.arange(width) * columns // width
    level = spread(heat)
    lit = level[row][:, column][..., None]
    pane = amounts()(level)[..., :3][row][:, column]
    behind = (image @ _LUMA / 255)[..., None]
    glass = pane * (_GLASS[0] + (_GLASS[1] - _GLASS[0]) * behind)
    glass = (1 - _CLEAR) * glass + _CLEAR * (0.5 + 0.6 * lit) * image / 255
    return lead(quantised(glass), (rows, columns))


def lead(image: Picture, grid: tuple[int, int]) -> Picture:
    """Draw the leading between the patches of a (rows, columns) grid over a picture.

    The lead is as wide as suits the pane (a twelfth of it); panes under four pixels get none.
    """
    result = image.copy()
    pane = min(image.shape[0] / grid[0], image.shape[1] / grid[1])
    if pane < 4:
        return result
    thickness = max(1, round(pane / 12))
    colour = quantised(rgb(LEADING))
    for axis, count in enumerate(grid):
        side = image.shape[axis]
        for i in range(count + 1):
            # the outer came is as wide as the inner ones, and all of it inside the picture
            middle = min(max(i * side / count, thickness / 2), side - thickness / 2)
            start = round(middle - thickness / 2)
            line = (slice(None),) * axis + (slice(start, start + thickness),)
            result[line] = colour
    return result


def enlarge(image: Picture, least: int) -> Picture:
    """Repeat pixels until the shorter side has at least `least`, so that leading has room."""
    times = max(1, -(-least // min(image.shape[:2])))
    return image.repeat(times, axis=0).repeat(times, axis=1)


def spread(heat: NDArray[np.floating]) -> NDArray[np.float64]:
    """Amounts stretched to [0, 1]; equal ones all become 0.5 rather than amplified rounding."""
    values = np.asarray(heat, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        return np.full(values.shape, 0.5)
    return (values - low) / (high - low)


def png(image: Picture) -> bytes:
    """A picture as PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def quantised(values: NDArray[np.float64]) -> Picture:
    """uint8 from colours in [0, 1]."""
    return np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)


def _check(image: Picture, heat: NDArray[np.floating]) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise UsageError(
            f"A picture is uint8 (height, width, 3), not {image.dtype} {tuple(image.shape)}."
        )
    if heat.ndim != 2 or heat.shape[0] > image.shape[0] or heat.shape[1] > image.shape[1]:
        raise UsageError(
            f"A map of shape {tuple(heat.shape)} does not fit a picture of "
            f"{image.shape[0]}×{image.shape[1]} pixels; it is (rows, columns) of patches."
        )
    if not np.isfinite(heat).all():
        raise UsageError("The map has values that are not finite; the weights are damaged.")
