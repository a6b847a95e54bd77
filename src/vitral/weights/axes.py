"""The axes of other formats' tensors and ours: a closed list of differences and inverses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from vitral.errors import WeightsError


class Shape(NamedTuple):
    """The sides that the axes of a tensor depend on beside the tensor.

    Attributes:
        heads: of attention; needed on the way to theirs alone.
        channels, patch: of a patch and its (height, width); 0 where it is to be guessed.
        wide: whether tensors that some files hold with further axes of length 1 have them.
    """

    heads: int = 1
    channels: int = 0
    patch: tuple[int, int] = (0, 0)
    wide: bool = False

    def of_patch(self, values: int) -> tuple[int, int, int]:
        """Guess (height, width, channels) of a flat patch: a square of 3 channels or 1 unless told.

        A number that is three times a square is no square itself, so the guess is never between
        two. WeightsError where nothing fits.
        """
        for channels in (self.channels,) if self.channels else (3, 1):
            height, width = self.patch
            if not height:
                height = width = math.isqrt(values // channels)
            if height * width * channels == values:
                return height, width, channels
        raise WeightsError(
            f"{values} values of a patch do not fit {self.channels or '3 or 1'} channels and "
            f"{'x'.join(map(str, self.patch)) if self.patch[0] else 'a square'}. Say both: --set "
            "model.patch=[HEIGHT,WIDTH] --set model.channels=NUMBER."
        )


UNTOLD = Shape()


class Axes(NamedTuple):
    """One difference: their number of axes, and the way from theirs to ours and back."""

    counts: tuple[int, ...]
    ours: Callable[[Tensor, Shape], Tensor]
    theirs: Callable[[Tensor, Shape], Tensor]


def _patch(x: Tensor, shape: Shape) -> Tensor:
    return x.unflatten(-1, shape.of_patch(x.shape[-1])).movedim(-1, -3)


AXES = {
    # (in, out)
    "linear": Axes((2,), lambda x, _: x.T, lambda x, _: x.T),
    # (height, width, in, out)
    "conv": Axes((4,), lambda x, _: x.permute(3, 2, 0, 1), lambda x, _: x.permute(2, 3, 1, 0)),
    # (1, 1, in, out)
    "conv1x1": Axes((4,), lambda x, _: x.flatten(0, 2).T, lambda x, _: x.T[None, None]),
    # (out, in, 1, 1)
    "pointwise": Axes((4,), lambda x, _: x.flatten(1), lambda x, _: x[:, :, None, None]),
    # (width, heads, head width)
    "heads_in": Axes(
        (3,), lambda x, _: x.flatten(1).T, lambda x, shape: x.T.unflatten(1, (shape.heads, -1))
    ),
    # (heads, head width)
    "heads": Axes(
        (2,), lambda x, _: x.flatten(), lambda x, shape: x.unflatten(0, (shape.heads, -1))
    ),
    # (heads, head width, width)
    "heads_out": Axes(
        (3,), lambda x, _: x.flatten(0, 1).T, lambda x, shape: x.T.unflatten(0, (shape.heads, -1))
    ),
    # (C) or (1, 1, 1, C)
    "channels": Axes(
        (1, 4),
        lambda x, _: x.flatten(),
        lambda x, shape: x.view(1, 1, 1, -1) if shape.wide else x,
    ),
    # (tokens, width) or (1, tokens, width)
    "tokens": Axes(
        (2, 3),
        lambda x, _: x if x.ndim == 3 else x[None],
        lambda x, shape: x if shape.wide else x[0],
    ),
    # (out, height * width * channels) of a linear map of flattened patches
    "patch": Axes((2,), _patch, lambda x, _: x.permute(0, 2, 3, 1).flatten(1)),
    # (height * width * channels)
    "patch_values": Axes(
        (1,),
        lambda x, shape: _patch(x, shape).flatten(),
        lambda x, shape: x.view(shape.channels, *shape.patch).permute(1, 2, 0).flatten(),
    ),
}


def to_ours(axes: str, x: Tensor, name: str, shape: Shape = UNTOLD) -> Tensor:
    """Return their tensor with our axes; WeightsError if it has another number of axes."""
    if not axes:
        return x
    if x.ndim not in AXES[axes].counts:
        wanted = " or ".join(str(count) for count in AXES[axes].counts)
        raise WeightsError(
            f"Tensor '{name}' has shape {tuple(x.shape)}; one of {wanted} axes belongs there."
        )
    return AXES[axes].ours(x, shape)


def is_wide(axes: str, x: Tensor) -> bool:
    """Tell whether their tensor has axes of length 1 that other files leave out."""
    return bool(axes) and len(AXES[axes].counts) > 1 and x.ndim == max(AXES[axes].counts)


def to_theirs(axes: str, x: Tensor, shape: Shape) -> Tensor:
    """Return our tensor with their axes: the inverse of `to_ours`."""
    return AXES[axes].theirs(x, shape) if axes else x
