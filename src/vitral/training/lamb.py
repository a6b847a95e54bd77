"""LAMB: Adam whose step on each kernel is as long as the kernel asks for (You et al. 2019).

For batches of thousands; DeiT-III trains with it. arXiv:1904.00962, algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from vitral.training.distributed.process_group import full, local


class Lamb(torch.optim.Optimizer):
    """x -= lr * ratio * u with u = m / (sqrt(v) + eps) + weight_decay * x, m and v unbiased.

    The trust ratio |x| / |u| is 1 where either is 0, and in groups without weight decay (biases
    and norms; timm's and Apex's rule), so that weight_decay 0 makes it Adam. Clipping is the
    caller's. Sharded parameters (DTensor) take their norms over all processes.

    Attributes:
        found_inf: float32 (), set by the caller: where it is 1 no parameter moves, as in torch's
            fused optimizers, and nobody waits for the answer.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(
            groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step for every parameter that has a gradient."""
        assert closure is None, "LAMB needs one gradient a step"
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                beta1, beta2 = group["betas"]
                updates = self._updates(parameters, beta1, beta2, group["eps"])
                if group["weight_decay"]:
                    torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
                    pieces = [local(update) for update in updates]
                    torch._foreach_mul_(pieces, _ratios(parameters, updates))
                if self.found_inf is not None:
                    for update in updates:
                        local(update).masked_fill_(self.found_inf > 0, 0)
                torch._foreach_add_(parameters, updates, alpha=-group["lr"])

    def _updates(
        self, parameters: list[nn.Parameter], beta1: float, beta2: float, eps: float
    ) -> list[Tensor]:
        """Adam's direction for each parameter; its moments move on."""
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["step"] = torch.zeros(())
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["step"] += 1
        counts = [self.state[p]["step"].item() for p in parameters]
        means = [self.state[p]["exp_avg"] for p in parameters]
        squares = [self.state[p]["exp_avg_sq"] for p in parameters]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.found_inf is not None:
            for gradient in gradients:
                local(gradient).masked_fill_(self.found_inf > 0, 0)
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, [math.sqrt(1 - beta2**count) for count in counts])
        torch._foreach_add_(roots, eps)
        updates = torch._foreach_div(means, [1 - beta1**count for count in counts])
        torch._foreach_div_(updates, roots)
        return list(updates)


def _ratios(parameters: list[nn.Parameter], updates: list[Tensor]) -> list[Tensor]:
    """|x| / |u| of each pair, 1 where either is 0; from one exchange between processes."""
    norms = full(torch.stack(torch._foreach_norm([*parameters, *updates])))
    weights, steps = norms.double().chunk(2)
    ratios = torch.where((weights > 0) & (steps > 0), weights / steps, 1.0)
    return list(ratios.float().unbind())
