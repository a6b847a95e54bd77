"""Gradient × attention relevance: the tokens that speak for one class.

Chefer, Gur & Wolf, "Generic Attention-model Explainability" (ICCV 2021), equations 5, 6 and 10,
with one difference: the rows of their Ā are divided by their sums, so that a block's attention
counts as much as the skip beside it, however steep the logit is (a row of zeros stays).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def relevance(
    logits: Tensor, attention: Sequence[Tensor], targets: Tensor, readout: Tensor, depth: int
) -> Tensor:
    """Measure how much each token speaks for the class chosen for its image.

    Ā = mean over heads of relu(∂logit / ∂A · A) of each block, each row divided by its sum;
    R ← R + Ā R from R = I on, read along the rows that the head reads. Only those rows are
    carried, from the last block to the first. A mean over the patches is attention whose weights
    are all the same, and a MAP head's probe is attention too: for both, the first row is the Ā of
    that pooling, not a row of I (unless it is all 0, because no token speaks for the class by
    itself: then `readout`).

    Args:
        logits, attention: of `model.forward_with_attention(images)`, still in their graph.
        targets: int64 (B,), the class to explain.
        readout: (B, T), how much of the output is read from each token (`attention.readout`).
        depth: number of blocks; attention beyond it pools, in as many rows as the head reads.

    Returns (B, T), at least 0, not normalised.
    """
    chosen = logits.gather(1, targets[:, None]).sum()  # the images of a batch are independent
    slopes = torch.autograd.grad(chosen, list(attention))
    with torch.no_grad():
        steps = [
            (slope * weights).clamp(min=0).mean(1)
            for slope, weights in zip(slopes, attention, strict=True)
        ]
        row = readout[:, None].to(steps[0].dtype)
        for step in steps[depth:]:
            pooling = _rows_sum_to_one(step.sum(1, keepdim=True))
            row = torch.where(pooling.sum(-1, keepdim=True) > 0, pooling, row)
        for step in reversed(steps[:depth]):
            row = row + row @ _rows_sum_to_one(step)
    return row[:, 0]


def _rows_sum_to_one(amounts: Tensor) -> Tensor:
    """Divide each row of (..., T) by its sum; rows of zeros stay."""
    return amounts / amounts.sum(-1, keepdim=True).clamp_min(torch.finfo(amounts.dtype).tiny)
