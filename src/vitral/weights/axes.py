"""How the axes of other formats' tensors differ from ours: a closed list, each with its inverse."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from vitral.errors import WeightsError


class Axes(NamedTuple):
    """Their axes, and the way there and back; back takes the number of heads."""

    axes: tuple[int, ...]
    ours: Callable[[Tensor], Tensor]
    theirs: Callable[[Tensor, int], Tensor]


AXES = {
    # (in, out)
    "linear": Axes((2,), lambda x: x.T, lambda x, _: x.T),
    # (height, width, in, out)
    "conv": Axes((4,), lambda x: x.permute(3, 2, 0, 1), lambda x, _: x.permute(2, 3, 1, 0)),
    # (1, 1, in, out)
    "conv1x1": Axes((4,), lambda x: x.flatten(0, 2).T, lambda x, _: x.T[None, None]),
    # (out, in, 1, 1)
    "pointwise": Axes((4,), lambda x: x.flatten(1), lambda x, _: x[:, :, None, None]),
    # (width, heads, head width)
    "heads_in": Axes((3,), lambda x: x.flatten(1).T, lambda x, h: x.T.unflatten(1, (h, -1))),
    # (heads, head width)
    "heads": Axes((2,), lambda x: x.flatten(), lambda x, h: x.unflatten(0, (h, -1))),
    # (heads, head width, width)
    "heads_out": Axes((3,), lambda x: x.flatten(0, 1).T, lambda x, h: x.T.unflatten(0, (h, -1))),
    # (C) or (1, 1, 1, C)
    "channels": Axes((1, 4), lambda x: x.flatten(), lambda x, _: x),
}


def to_ours(axes: str, x: Tensor, name: str) -> Tensor:
    """Their tensor of that name with our axes; WeightsError if its own are not what they were."""
    if not axes:
        return x
    if x.ndim not in AXES[axes].axes:
        wanted = " or ".join(str(axes) for axes in AXES[axes].axes)
        raise WeightsError(
            f"Tensor '{name}' has shape {tuple(x.shape)}; one of {wanted} axes belongs there."
        )
    return AXES[axes].ours(x)


def to_theirs(axes: str, x: Tensor, heads: int, wide: bool) -> Tensor:
    """The inverse; `wide` gives channels the shape (1, 1, 1, C)."""
    if axes == "channels" and wide:
        return x.view(1, 1, 1, -1)
    return AXES[axes].theirs(x, heads) if axes else x
