"""Parameter groups, the learning rate's schedule, and the averaged weights."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from vitral.training.recipe import Optimizer


def is_kernel(name: str, parameter: Tensor) -> bool:
    """Whether weight decay applies: matrices and convolutions, as in big_vision.

    Biases, norms, tokens, position tables and probes are left alone.
    """
    return name.endswith("weight") and parameter.ndim >= 2


def layer_of(name: str, depth: int) -> int:
    """0 for what makes the tokens, 1 to depth for the blocks, depth + 1 for what reads them."""
    first, _, rest = name.partition(".")
    if first == "blocks":
        return 1 + int(rest.partition(".")[0])
    tokens = ("stem", "patches", "cls", "distillation", "registers", "positions")
    return 0 if first in tokens else depth + 1


def adamw(model: nn.Module, settings: Optimizer) -> torch.optim.AdamW:
    """AdamW whose decay is decoupled and multiplied by the learning rate (Table 3's convention).

    Each group has a `scale` of the learning rate: layer_decay to the power of the layers above
    (Clark et al. 2020; BEiT). The first group has the full rate.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    depth = max((layer_of(name, 0) for name, _ in named if name.startswith("blocks.")), default=0)
    members: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        below = depth + 1 - layer_of(name, depth) if settings.layer_decay < 1 else 0
        members.setdefault((below, is_kernel(name, parameter)), []).append(parameter)
    groups = [
        {
            "params": parameters,
            "weight_decay": settings.weight_decay if kernels else 0.0,
            "scale": settings.layer_decay**below,
        }
        for (below, kernels), parameters in sorted(
            members.items(), key=lambda item: (item[0][0], not item[0][1])
        )
    ]
    return torch.optim.AdamW(
        groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), fused=True
    )


def schedule(step: int, total: int, warmup: int) -> float:
    """Multiplier of the learning rate at a step in [0, total): linear warm-up, then cosine to 0.

    Progress is clip((t - w) / (T - w), 0, 1) as in the authors' code; the warm-up reaches 1 at its
    last step, and counts from 1 so that the first step already learns.
    """
    progress = min(max((step - warmup) / max(total - warmup, 1), 0.0), 1.0)
    rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return rise * 0.5 * (1.0 + math.cos(math.pi * progress))


class Average:
    """Exponential moving average of the weights (EMA; Polyak averaging in the paper's B.1.1).

    The decay rises from 0.1 as (1 + t) / (10 + t) to its final value, so that short runs do not
    average in their random start. Kept in float32 whatever the precision of the steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False) if decay else model

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the weights of `model` after step number `step` (from 0)."""
        if self.decay:
            decay = min(self.decay, (1 + step) / (10 + step))
            averaged: list[Tensor] = list(self.model.parameters())
            current: list[Tensor] = list(model.parameters())
            torch._foreach_lerp_(averaged, current, 1 - decay)
