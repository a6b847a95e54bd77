"""Integrated gradients: what each patch gives to one class, in three passes forward and back.

Sundararajan, Taly & Yan, "Axiomatic Attribution for Deep Networks" (ICML 2017), from the image's
own mean colour, which is also what occlusion puts in a patch's place, to the image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vitral.model import ViT

# Gauss-Legendre on [0, 1]: exact where the gradient is a polynomial of degree 5 along the way
POINTS = (0.5 - 0.15**0.5, 0.5, 0.5 + 0.15**0.5)
WEIGHTS = (5 / 18, 8 / 18, 5 / 18)


def integrated_gradients(
    model: ViT, images: Tensor, targets: Tensor, grid: tuple[int, int]
) -> Tensor:
    """Measure how much each patch gives to the class chosen for its image.

    What stands for a class is its logit less the mean of all, so that what speaks for every class
    alike counts for none. The amounts of all patches sum to what it gains from an image of the mean
    colour to the image, but for what three points leave of the integral.

    Args:
        model: in evaluation mode, with a head.
        images: (B, C, H, W), normalised.
        targets: int64 (B,), the class to explain.
        grid: rows and columns of patches.

    Returns (B, rows, columns), negative where a patch speaks against the class.
    """
    mean = images.mean(dim=(2, 3), keepdim=True)
    way = images - mean
    total = torch.zeros_like(images)
    for point, weight in zip(POINTS, WEIGHTS, strict=True):
        with torch.enable_grad():
            between = (mean + point * way).requires_grad_(True)
            logits = model(between, any_size=True)
            chosen = logits.gather(1, targets[:, None]).sum() - logits.mean(dim=1).sum()
        (slope,) = torch.autograd.grad(chosen, [between])
        total += weight * slope
    amounts = (total * way).sum(dim=1, keepdim=True)
    cells = amounts.shape[2] * amounts.shape[3] / (grid[0] * grid[1])
    return F.adaptive_avg_pool2d(amounts, grid)[:, 0] * cells
