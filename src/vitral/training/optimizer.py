"""The optimizer, and the groups of parameters that it moves at their own rates."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vitral.errors import SpecError
from vitral.training.distributed.process_group import local
from vitral.training.lamb import Lamb
from vitral.training.objectives.base import short_name
from vitral.training.recipe import Optimizer


def build(model: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """The optimizer of a model's parameters that require a gradient; the caller clips.

    Each group has a `scale` of the learning rate: layer_decay to the power of the layers above
    (Clark et al. 2020; BEiT). The first group is that of the head, with the full rate. Weight decay
    is decoupled and multiplied by the rate for every kind (Table 3's convention). What the
    optimizer remembers of a parameter are tensors in `state[parameter]`.
    """
    groups = _groups(model, settings)
    betas = (settings.beta1, settings.beta2)
    match settings.kind:
        case "adamw":
            return torch.optim.AdamW(groups, lr=settings.lr, betas=betas, fused=True)
        case "sgd":
            return Momentum(groups, lr=settings.lr, momentum=settings.momentum)
        case "lamb":
            return Lamb(groups, lr=settings.lr, betas=betas, eps=1e-8)  # DeiT-III's, as AdamW's
        case _:
            raise SpecError(f"There is no optimizer '{settings.kind}'.")


class Momentum(torch.optim.Optimizer):
    """SGD: b = momentum * b + gradient; x -= lr * (b + weight_decay * x).

    torch's own puts the decay into the gradient, and so into the momentum.

    Attributes:
        found_inf: float32 (), set by the caller: where it is 1 no parameter moves, as in torch's
            fused optimizers, and nobody waits for the answer.
    """

    found_inf: Tensor | None = None

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, momentum: float) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step for every parameter that has a gradient."""
        assert closure is None, "SGD needs one gradient a step"
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            for parameter in parameters:
                if "momentum_buffer" not in self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            values = [local(p) for p in parameters]
            gradients = [local(p.grad) for p in parameters if p.grad is not None]
            buffers = [local(self.state[p]["momentum_buffer"]) for p in parameters]
            is_bad = None if self.found_inf is None else self.found_inf > 0
            if is_bad is not None:
                gradients = [gradient.masked_fill(is_bad, 0) for gradient in gradients]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, gradients)
            moved = torch._foreach_mul(values, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(moved, buffers, alpha=-group["lr"])
            if is_bad is not None:
                kept = zip(values, moved, strict=True)
                moved = tuple(torch.where(is_bad, old, new) for old, new in kept)
            torch._foreach_copy_(values, moved)


def is_kernel(name: str, parameter: Tensor) -> bool:
    """Return whether weight decay applies: matrices and convolutions, as in big_vision.

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


def _groups(model: nn.Module, settings: Optimizer) -> list[dict[str, Any]]:
    """Parameters of one rate and one decay together; the full rate first, kernels before others."""
    named = [(short_name(name), parameter) for name, parameter in model.named_parameters()]
    names = [name for name, _ in named if name.startswith("blocks.")]
    depth = max((layer_of(name, 0) for name in names), default=0)
    members: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        if parameter.requires_grad:
            below = depth + 1 - layer_of(name, depth) if settings.layer_decay < 1 else 0
            members.setdefault((below, is_kernel(name, parameter)), []).append(parameter)
    return [
        {
            "params": members[below, kernels],
            "weight_decay": settings.weight_decay if kernels else 0.0,
            "scale": settings.layer_decay**below,
        }
        for below, kernels in sorted(members, key=lambda key: (key[0], not key[1]))
    ]
