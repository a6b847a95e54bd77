"""The inside of every layer: the logit lens, and the norms and angles of q, k and v.

The logit lens (nostalgebraist 2020) reads the tokens after every block as if it were the last, and
so shows when the network knew its answer.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vitral.model import Features, ViT
from vitral.model.layers import Block
from vitral.model.positions import position_context


def logit_lens(model: ViT, features: Features) -> Tensor:
    """Read the head after every layer: logits (B, depth + 1, classes).

    Row 0 is the embedding of equation 1, row l follows block l, and the last equals forward. Where
    each block adds positions of its own, a row holds those of the block that it enters. `features`
    are of the images, with every block.
    """
    depths = range(model.spec.depth + 1)
    with torch.no_grad():
        tokens = [features.per_block[depth] for depth in depths]
        # a head may read class tokens of several blocks: those up to this one
        rows = [model.logits_from_tokens(*tokens[: depth + 1]) for depth in depths]
    return torch.stack(rows, dim=1)


def norms_and_cosines(model: ViT, features: Features, layer: int) -> tuple[Tensor, Tensor]:
    """Measure queries, keys and values everywhere, and compare patches in one layer.

    Args:
        model: with at least one block.
        features: of the images, with every block.
        layer: the one to compare patches in, counted from 1.

    Returns:
        norms (B, 3, depth, heads, N): Euclidean norms of q, k and v of each token.
        cosines (B, patches, patches): of query (row) and key (column), mean over the heads.
    """
    norms = []
    cosines = torch.empty(0)
    with torch.no_grad():
        context = position_context(model.spec, features.grid, features.patches)
        for number, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            q, k, v = block.attention.project(block.norm1(features.per_block[number]), context)
            norms.append(torch.stack([part.norm(dim=-1) for part in (q, k, v)], dim=1))
            if number == layer - 1:
                q, k = (F.normalize(part[:, :, model.spec.prefix :], dim=-1) for part in (q, k))
                cosines = (q @ k.mT).mean(1)
    return torch.stack(norms, dim=2), cosines
