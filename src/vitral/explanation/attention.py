"""Attention weights as maps and numbers: rollout, distance, what the output draws on.

Pure functions of tensors. `weights` is what `model.attention_weights(images)` gives: one
(B, heads, N, N) per block, softmax over the last axis, the prefix tokens (class token, registers)
first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vitral.errors import ModelError, UsageError
from vitral.explanation.request import Query
from vitral.specs import ModelSpec


def rollout(weights: Sequence[Tensor], residual: bool = True) -> Tensor:
    """Multiply attention through the blocks: rollout (Abnar & Zuidema 2020; figures 6 and 14).

    Each block's heads are averaged; with `residual` the skip connection joins as
    A' = 0.5 A + 0.5 I (without, A alone: the ViT paper's text mentions no identity); rows are
    normalised, and R = A'_L ... A'_1.

    Args:
        weights: one (B, heads, N, N) per block, the first block first.
        residual: whether the skip connections take part.

    Returns (B, N, N) float32; row i says how much output token i draws on every input token and
    sums to 1.
    """
    _check(weights)
    product = None
    for block in weights:
        step = block.float().mean(dim=1)
        if residual:
            step = 0.5 * step + 0.5 * torch.eye(len(step[0]), dtype=step.dtype, device=step.device)
        step = step / step.sum(dim=-1, keepdim=True)
        product = step if product is None else step @ product
    assert product is not None
    return product


def attention_distance(
    weights: Tensor, grid: tuple[int, int], patch: int | tuple[int, int]
) -> Tensor:
    """Average the distance over which each head looks (figure 7 right, figure 11 of the paper).

    The distance between two patches is that of their centres; Σ_k A_qk · dist(q, k) is averaged
    over queries and images.

    Args:
        weights: (B, heads, N, N) over patches only (see `patches_only`), N = rows · columns.
        grid: (rows, columns) of patches.
        patch: side, or (height, width), of a patch in pixels.

    Returns (heads,) float64 in pixels.
    """
    if weights.ndim != 4 or weights.shape[-2:] != (grid[0] * grid[1],) * 2:
        raise UsageError(
            f"Attention over a {grid[0]}×{grid[1]} grid has shape (B, heads, "
            f"{grid[0] * grid[1]}, {grid[0] * grid[1]}), not {tuple(weights.shape)}; drop the "
            f"prefix tokens with patches_only(weights, num_prefix)."
        )
    rows, columns = torch.meshgrid(*(torch.arange(n).double() for n in grid), indexing="ij")
    centres = torch.stack([rows.flatten(), columns.flatten()], dim=1).to(weights.device)
    centres = centres * torch.tensor(patch, device=weights.device)
    distance = torch.cdist(centres, centres, compute_mode="donot_use_mm_for_euclid_dist")
    return (weights.double() * distance).sum(dim=-1).mean(dim=(0, 2))


def patches_only(weights: Tensor, num_prefix: int) -> Tensor:
    """Drop the rows and columns of the prefix tokens from (..., N, N); rows sum to 1 again.

    The paper does not say whether the share of the class token is spread over the patches or lost;
    here it is spread, so that an attention distance does not shrink with the class token's share.
    """
    weights = weights[..., num_prefix:, num_prefix:]
    return weights / weights.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)


def readout(
    spec: ModelSpec, grid: tuple[int, int], weights: Sequence[Tensor], query: Query | None
) -> Tensor:
    """Say what is read at the end: the share of each token, (B, T), summing to 1.

    A query is one token. None is what the head reads: the class token, half of it and half of the
    distillation token, every patch alike, what the probe of a MAP head attends to, or the mean of
    all vectors (`spec.readout`) of a head that reads several, side by side.

    Args:
        spec: of the model.
        grid: (rows, columns) of patches.
        weights: of `model.forward_with_attention(images)`; those beyond the blocks pool, one for
            each vector that the head reads.
        query: "cls", a patch (row, column) from 1, 1, or None.
    """
    count = spec.prefix + grid[0] * grid[1]
    share = weights[0].new_zeros(len(weights[0]), count)
    match query:
        case (int(row), int(column)):
            share[:, spec.prefix + (row - 1) * grid[1] + column - 1] = 1
        case "cls":
            share[:, 0] = 1
        case None if len(weights) > spec.depth:
            pooling = [each.detach().mean(dim=1)[:, 0] for each in weights[spec.depth :]]
            share = torch.stack(pooling).mean(dim=0)
        case None:
            read = read_tokens(spec, share)
            share = read / read.sum(dim=1, keepdim=True)
    return share


def read_tokens(spec: ModelSpec, like: Tensor) -> Tensor:
    """Weigh the tokens that the head reads, without asking how: amounts like (B, T), of any sum.

    A MAP head weighs the tokens by a probe of its own; here all patches stand in for it. Of several
    vectors (`spec.readout`) each counts alike.
    """
    read = torch.zeros_like(like)
    for _, tokens in spec.readout:
        match tokens:
            case "cls":
                part = read[:, : 1 + spec.distillation_token]
            case "mean_all":
                part = read
            case _:
                part = read[:, spec.prefix :]
        part += 1 if len(spec.readout) == 1 else 1 / part.shape[1]
    return read


def to_patches(weights: Tensor, read: Tensor, grid: tuple[int, int], num_prefix: int) -> Tensor:
    """Map how much the tokens that are read draw on each patch.

    Args:
        weights: (B, ..., N, N), row = query.
        read: (B, N), as `readout` gives it.
        grid: (rows, columns) of patches.
        num_prefix: tokens before the patches.

    Returns (B, ..., rows, columns), the share of the prefix left out and the rest summing to 1.
    """
    share = torch.einsum("bi,b...ij->b...j", read.to(weights.dtype), weights)
    return normalised_map(share, grid, num_prefix)


def normalised_map(amounts: Tensor, grid: tuple[int, int], num_prefix: int) -> Tensor:
    """Lay (..., N) amounts per token out as (..., rows, columns) of patches, summing to 1.

    The prefix is left out; where all patches have 0, each gets the same share.
    """
    share = amounts[..., num_prefix:]
    total = share.sum(dim=-1, keepdim=True)
    equal = torch.full_like(share, 1 / share.shape[-1])
    share = torch.where(total > 0, share / total.clamp_min(torch.finfo(share.dtype).tiny), equal)
    return share.unflatten(-1, grid)


def _check(weights: Sequence[Tensor]) -> None:
    if not len(weights):
        raise ModelError("There is no attention to roll out: the model gave no block's weights.")
    shapes = {(block.shape[0], *block.shape[2:]) for block in weights if block.ndim == 4}
    if len(shapes) != 1 or any(block.ndim != 4 for block in weights):
        given = ", ".join(str(tuple(block.shape)) for block in weights[:3])
        raise UsageError(
            f"Attention rollout takes one (B, heads, N, N) per block with the same B and N in "
            f"each, not {given}."
        )
