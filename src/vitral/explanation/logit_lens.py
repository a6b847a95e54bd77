"""What each layer knows already: the logit lens, and the sizes and angles of q, k and v.

The logit lens (nostalgebraist 2020) reads the tokens after every block as if it were the last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def lens(model: nn.Module, images: Tensor) -> Tensor:
    """Logits (B, depth + 1, classes): of what enters each block, and of what leaves the last.

    Row 0 is the embedding of equation 1, row l follows block l, and the last equals forward. Where
    each block adds positions of its own, a row holds those of the block that it enters.
    """
    network: Any = model
    depths = range(network.spec.depth + 1)
    with torch.no_grad():
        tokens = network.features(images, depths, any_size=True).per_block
        return torch.stack([network.logits_from_tokens(tokens[index]) for index in depths], dim=1)


def projections(model: nn.Module, images: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Lengths of queries, keys and values everywhere, and the angles between patches in one layer.

    Args:
        layer: the one to compare patches in, counted from 1.

    Returns:
        lengths (B, 3, depth, heads, N): Euclidean norms of q, k and v of each token.
        cosines (B, patches, patches): of query (row) and key (column), mean over the heads.
    """
    network: Any = model
    prefix: int = network.spec.prefix
    lengths, cosines = [], torch.empty(0)
    with torch.no_grad():
        for block in range(network.spec.depth):
            q, k, v = network.queries_keys_values(images, block, any_size=True)
            lengths.append(torch.stack([part.norm(dim=-1) for part in (q, k, v)], dim=1))
            if block == layer - 1:
                q, k = (F.normalize(part[:, :, prefix:], dim=-1) for part in (q, k))
                cosines = (q @ k.mT).mean(1)
    return torch.stack(lengths, dim=2), cosines
