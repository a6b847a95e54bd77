"""The inside of every layer: the logit lens, and the norms and angles of q, k and v.

The logit lens (nostalgebraist 2020) reads the tokens after every block as if it were the last, and
so shows when the network knew its answer.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vitral.model import ViT


def logit_lens(model: ViT, images: Tensor) -> Tensor:
    """Read the head after every layer: logits (B, depth + 1, classes).

    Row 0 is the embedding of equation 1, row l follows block l, and the last equals forward. Where
    each block adds positions of its own, a row holds those of the block that it enters.
    """
    depths = range(model.spec.depth + 1)
    with torch.no_grad():
        entered = model.features(images, depths, any_size=True).per_block
        tokens = [entered[depth] for depth in depths]
        # a head may read class tokens of several blocks: those up to this one
        rows = [model.logits_from_tokens(*tokens[: depth + 1]) for depth in depths]
    return torch.stack(rows, dim=1)


def norms_and_cosines(model: ViT, images: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Measure queries, keys and values everywhere, and compare patches in one layer.

    Args:
        model: with at least one block.
        images: (B, C, H, W), normalised.
        layer: the one to compare patches in, counted from 1.

    Returns:
        norms (B, 3, depth, heads, N): Euclidean norms of q, k and v of each token.
        cosines (B, patches, patches): of query (row) and key (column), mean over the heads.
    """
    norms = []
    cosines = torch.empty(0)
    with torch.no_grad():
        for block in range(model.spec.depth):
            q, k, v = model.queries_keys_values(images, block, any_size=True)
            norms.append(torch.stack([part.norm(dim=-1) for part in (q, k, v)], dim=1))
            if block == layer - 1:
                q, k = (F.normalize(part[:, :, model.spec.prefix :], dim=-1) for part in (q, k))
                cosines = (q @ k.mT).mean(1)
    return torch.stack(norms, dim=2), cosines
