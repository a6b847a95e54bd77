"""How the axes of other homes' tensors differ from ours: a closed list, each with its inverse."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from vitral.errors import WeightsError


class Move(NamedTuple):
    """Their axes, and the way there and back; back takes the number of heads."""

    axes: tuple[int, ...]
    ours: Callable[[Tensor], Tensor]
    theirs: Callable[[Tensor, int], Tensor]


MOVES = {
    # (in, out)
    "linear": Move((2,), lambda x: x.T, lambda x, _: x.T),
    # (height, width, in, out)
    "conv": Move((4,), lambda x: x.permute(3, 2, 0, 1), lambda x, _: x.permute(2, 3, 1, 0)),
    # (1, 1, in, out)
    "conv1x1": Move((4,), lambda x: x.flatten(0, 2).T, lambda x, _: x.T[None, None]),
    # (out, in, 1, 1)
    "pointwise": Move((4,), lambda x: x.flatten(1), lambda x, _: x[:, :, None, None]),
    # (width, heads, head width)
    "heads_in": Move((3,), lambda x: x.flatten(1).T, lambda x, h: x.T.unflatten(1, (h, -1))),
    # (heads, head width)
    "heads": Move((2,), lambda x: x.flatten(), lambda x, h: x.unflatten(0, (h, -1))),
    # (heads, head width, width)
    "heads_out": Move((3,), lambda x: x.flatten(0, 1).T, lambda x, h: x.T.unflatten(0, (h, -1))),
    # (C) or (1, 1, 1, C)
    "channels": Move((1, 4), lambda x: x.flatten(), lambda x, _: x),
}


def moved(move: str, x: Tensor, name: str) -> Tensor:
    """Their tensor of that name with our axes; WeightsError if its own are not what they were."""
    if not move:
        return x
    if x.ndim not in MOVES[move].axes:
        wanted = " or ".join(str(axes) for axes in MOVES[move].axes)
        raise WeightsError(
            f"Tensor '{name}' has shape {tuple(x.shape)}; one of {wanted} axes belongs there."
        )
    return MOVES[move].ours(x)


def moved_back(move: str, x: Tensor, heads: int, wide: bool) -> Tensor:
    """The inverse; `wide` gives channels the shape (1, 1, 1, C)."""
    if move == "channels" and wide:
        return x.view(1, 1, 1, -1)
    return MOVES[move].theirs(x, heads) if move else x
