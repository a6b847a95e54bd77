"""The averaged weights of a run: evaluated and kept in place of those that training moves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vitral.training.distributed.process_group import local


class EMA:
    """Exponential moving average of what learns (EMA; Polyak averaging in the paper's B.1.1).

    The decay rises from 0.1 as (1 + t) / (10 + t) to its final value, so that short runs do not
    average in their random start. Kept in float32 whatever the precision of the steps, for the
    parameters that learn alone; with decay 0 there is nothing to keep.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.tensors: dict[str, Tensor] = (
            {name: p.detach().clone() for name, p in learning} if decay else {}
        )

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the weights of `model` after step number `step` (from 0)."""
        if self.decay:
            decay = min(self.decay, (1 + step) / (10 + step))
            averaged, current = self._pairs(model)
            torch._foreach_lerp_(averaged, current, 1 - decay)

    @contextlib.contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[nn.Module]:
        """`model` with the averaged weights in it; the others come back at the end."""
        self._exchange(model)
        try:
            yield model
        finally:
            self._exchange(model)

    @torch.no_grad()
    def _exchange(self, model: nn.Module) -> None:
        if self.decay:
            averaged, current = self._pairs(model)
            originals = [value.clone() for value in current]
            torch._foreach_copy_(current, averaged)
            torch._foreach_copy_(averaged, originals)

    def _pairs(self, model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        parameters = dict(model.named_parameters())
        averaged = [local(tensor) for tensor in self.tensors.values()]
        return averaged, [local(parameters[name].data) for name in self.tensors]
