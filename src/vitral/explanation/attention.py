"""What attention weights say, as pure functions of tensors: rollout, distance, patch maps.

`weights` is what `model.attention_weights(images)` gives: one (B, heads, N, N) per block, softmax
over the last axis, the prefix tokens (class token, registers) first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from vitral.errors import ModelError, UsageError
from vitral.explanation.request import Query
from vitral.specs import ModelSpec

Pool = Literal["cls", "mean"]


def rollout(weights: Sequence[Tensor], residual: bool = True) -> Tensor:
    """Attention rollout (Abnar & Zuidema 2020; figures 6 and 14 of the paper).

    Each block's heads are averaged; with `residual` the skip connection joins as
    A' = 0.5 A + 0.5 I (without, A alone: the ViT paper's text mentions no identity); rows are
    normalised, and R = A'_L ... A'_1.

    Args:
        weights: one (B, heads, N, N) per block, the first block first.

    Returns (B, N, N) float32; row i says how much output token i draws on every input token and
    sums to 1.
    """
    _check(weights)
    result = None
    for block in weights:
        mean = block.float().mean(dim=1)
        if residual:
            mean = 0.5 * mean + 0.5 * torch.eye(
                mean.shape[-1], dtype=mean.dtype, device=mean.device
            )
        mean = mean / mean.sum(dim=-1, keepdim=True)
        result = mean if result is None else mean @ result
    assert result is not None
    return result


def attention_distance(weights: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """Mean distance over which each head looks (figure 7 right, figure 11 of the paper).

    The distance between two patches is that of their centres; Σ_k A_qk · dist(q, k) is averaged
    over queries and images.

    Args:
        weights: (B, heads, N, N) over patches only (see `patches_only`), N = rows · columns.
        grid: (rows, columns) of patches.
        patch: side of a patch in pixels.

    Returns (heads,) float64 in pixels.
    """
    if weights.ndim != 4 or weights.shape[-2:] != (grid[0] * grid[1],) * 2:
        raise UsageError(
            f"Attention over a {grid[0]}×{grid[1]} grid has shape (B, heads, "
            f"{grid[0] * grid[1]}, {grid[0] * grid[1]}), not {tuple(weights.shape)}; drop the "
            f"prefix tokens with patches_only(weights, num_prefix)."
        )
    rows, columns = torch.meshgrid(*(torch.arange(n).double() for n in grid), indexing="ij")
    centres = torch.stack([rows.flatten(), columns.flatten()], dim=1).to(weights.device) * patch
    distance = torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist")
    return (weights.double() * distance).sum(dim=-1).mean(dim=(0, 2))


def patches_only(weights: Tensor, num_prefix: int) -> Tensor:
    """(..., N, N) attention without the prefix tokens' rows and columns, rows summing to 1 again.

    The paper does not say whether the share of the class token is spread over the patches or lost;
    here it is spread, so that an attention distance does not shrink with the class token's share.
    """
    kept = weights[..., num_prefix:, num_prefix:]
    return kept / kept.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(kept.dtype).tiny)


def heatmap(weights: Tensor, grid: tuple[int, int], num_prefix: int, pool: Pool = "cls") -> Tensor:
    """How much the model's output draws on each patch, as a map.

    A model that answers from its class token is read along that token's row; a mean-pooled model
    along the mean of its patches' rows. The share that stays on prefix tokens is left out and the
    rest sums to 1.

    Args:
        weights: (..., N, N) rows summing to 1: a rollout (B, N, N), or heads (B, heads, N, N).
        grid: (rows, columns) of patches; rows · columns + num_prefix = N.
        num_prefix: tokens before the patches.
        pool: "cls" or "mean", as in ModelSpec; "cls" needs num_prefix >= 1.

    Returns (..., rows, columns), summing to 1 over the last two axes.
    """
    tokens = weights.shape[-1]
    if tokens != grid[0] * grid[1] + num_prefix:
        raise UsageError(
            f"{tokens} tokens are not {num_prefix} prefix tokens and {grid[0]}×{grid[1]} patches."
        )
    if pool == "cls" and num_prefix < 1:
        raise ModelError("The model has no class token to read from; use pool='mean'.")
    query = weights[..., 0, :] if pool == "cls" else weights[..., num_prefix:, :].mean(dim=-2)
    share = query[..., num_prefix:]
    share = share / share.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(share.dtype).tiny)
    return share.unflatten(-1, grid)


def reader(
    spec: ModelSpec, grid: tuple[int, int], weights: Sequence[Tensor], query: Query | None
) -> Tensor:
    """(B, T): the share of each token in what is asked for, summing to 1.

    A query is one token. None is what the head reads: the class token, half of it and half of the
    distillation token, every patch alike, or what the probe of a MAP head attends to.

    Args:
        weights: of `model.forward_with_attention(images)`; one beyond the blocks, if any, pools.
    """
    count = spec.prefix + grid[0] * grid[1]
    share = weights[0].new_zeros(len(weights[0]), count)
    match query:
        case (int(row), int(column)):
            share[:, spec.prefix + (row - 1) * grid[1] + column - 1] = 1
        case "cls":
            share[:, 0] = 1
        case None if len(weights) > spec.depth:
            share = weights[-1].detach().mean(dim=1)[:, 0]
        case None:
            share[:, : 1 + spec.distillation_token] = 1 / (1 + spec.distillation_token)
    return share


def looked(weights: Tensor, read: Tensor, grid: tuple[int, int], num_prefix: int) -> Tensor:
    """How much the tokens that are read draw on each patch, as a map.

    Args:
        weights: (B, ..., N, N), row = query.
        read: (B, N), as `reader` gives it.

    Returns (B, ..., rows, columns), the share of the prefix left out and the rest summing to 1.
    """
    share = torch.einsum("bi,b...ij->b...j", read.to(weights.dtype), weights)
    return as_map(share, grid, num_prefix)


def as_map(share: Tensor, grid: tuple[int, int], num_prefix: int) -> Tensor:
    """(..., N) amounts per token -> (..., rows, columns) summing to 1; equal ones if all are 0."""
    share = share[..., num_prefix:]
    total = share.sum(dim=-1, keepdim=True)
    equal = torch.full_like(share, 1 / share.shape[-1])
    share = torch.where(total > 0, share / total.clamp_min(torch.finfo(share.dtype).tiny), equal)
    return share.unflatten(-1, grid)


def _check(weights: Sequence[Tensor]) -> None:
    if not len(weights):
        raise ModelError("There is no attention to roll out: the model gave no block's weights.")
    shapes = {(block.shape[0], *block.shape[2:]) for block in weights if block.ndim == 4}
    if len(shapes) != 1 or any(block.ndim != 4 for block in weights):
        found = ", ".join(str(tuple(block.shape)) for block in weights[:3])
        raise UsageError(
            f"Attention rollout takes one (B, heads, N, N) per block with the same B and N in "
            f"each, not {found}."
        )
