"""A head with one logit, as binary cross-entropy trains it, and the same as two classes.

The probability of the sigmoid is that of a softmax over two logits of which the first is 0:
sigmoid(z) = exp(z) / (exp(0) + exp(z)). With a single class a softmax would always answer 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

HEADS = ("head.weight", "head.bias", "distillation_head.weight", "distillation_head.bias")


def as_two(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put a class whose logit is always 0 before the only one."""
    zeros = {name: torch.zeros_like(tensors[name]) for name in HEADS if name in tensors}
    return {
        name: torch.cat([zeros[name], x]) if name in zeros else x for name, x in tensors.items()
    }


def as_one(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `as_two`."""
    return {name: x[1:].contiguous() if name in HEADS else x for name, x in tensors.items()}


def names_of_two(names: tuple[str, ...] | None) -> tuple[str, ...]:
    """Name both classes by what names the one, or number them."""
    match names:
        case None:
            return ("0", "1")
        case (only,):
            return (f"not {only}", only)
        case _:
            return names
