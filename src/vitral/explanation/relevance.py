"""Gradient × attention relevance: the tokens that speak for one class.

Chefer, Gur & Wolf, "Generic Attention-model Explainability" (ICCV 2021), equations 5, 6 and 10,
with one difference: the rows of their Ā are divided by their sums, so that a block's attention
counts as much as the skip beside it, however steep the logit is (a row of zeros stays).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vitral.specs import ModelSpec


def relevance(
    spec: ModelSpec, logits: Tensor, attention: Sequence[Tensor], targets: Tensor, readout: Tensor
) -> Tensor:
    """Measure how much each token speaks for the class chosen for its image.

    Ā = mean over heads of relu(∂logit / ∂A · A) of each block, each row divided by its sum;
    R ← R + Ā R from R = I on, read along the rows that the head reads. Only those rows are
    carried, from the last block to the first. A mean over the patches is attention whose weights
    are all the same, and a MAP head's probe is attention too: for both, the first row is the Ā of
    that pooling, not a row of I (unless it is all 0, because no token speaks for the class by
    itself: then what is read). A head that reads several vectors has a row for each; together
    they sum to 1, and each is carried from the block after which it is read.

    Args:
        spec: of the model.
        logits, attention: of `model.forward_with_attention(images)`, still in their graph.
        targets: int64 (B,), the class to explain.
        readout: (B, T), the share of each token in what is read at the end, where no attention
            beyond the blocks pools (`attention.readout`).

    Returns (B, T), at least 0, not normalised.
    """
    chosen = logits.gather(1, targets[:, None]).sum()  # the images of a batch are independent
    slopes = torch.autograd.grad(chosen, list(attention))
    with torch.no_grad():
        steps = [
            (slope * weights).clamp(min=0).mean(1)
            for slope, weights in zip(slopes, attention, strict=True)
        ]
        rows = _rows_read(spec, attention[spec.depth :], steps[spec.depth :])
        row = rows.get(0, readout[:, None].to(steps[0].dtype))
        for back, step in enumerate(reversed(steps[: spec.depth]), start=1):
            row = row + row @ _rows_sum_to_one(step)
            row = row + rows[back] if back in rows else row
    return row[:, 0]


def _rows_read(
    spec: ModelSpec, pooling: Sequence[Tensor], steps: Sequence[Tensor]
) -> dict[int, Tensor]:
    """The rows (B, 1, T) that pooling reads, by the number of blocks before the end."""
    rows: dict[int, Tensor] = {}
    sums = [step.sum(-1, keepdim=True) for step in steps]
    for (back, _), weights, step in zip(spec.readout, pooling, steps, strict=False):
        total = torch.stack(sums).sum(0)
        share = step / total.clamp_min(torch.finfo(step.dtype).tiny)
        row = torch.where(total > 0, share, weights.mean(1) / len(steps))
        rows[back] = rows[back] + row if back in rows else row
    return rows


def _rows_sum_to_one(amounts: Tensor) -> Tensor:
    """Divide each row of (..., T) by its sum; rows of zeros stay."""
    return amounts / amounts.sum(-1, keepdim=True).clamp_min(torch.finfo(amounts.dtype).tiny)
