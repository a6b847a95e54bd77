"""Is an explanation true? Take patches away in its order and watch the probability.

Deletion and insertion (Petsiuk, Das & Saenko, "RISE", 2018) with the image's own mean colour in
place of a patch, beside patches in random order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vitral.explanation.findings import Faithfulness
from vitral.explanation.masked_scores import masked_log_probs
from vitral.explanation.request import ExplainRequest
from vitral.model import ViT

RANDOM_ORDERS = 8  # to compare with: what so few leave unsure is in the verdict's margin


def faithfulness(
    model: ViT,
    images: Tensor,
    heatmaps: Tensor,
    targets: Tensor,
    request: ExplainRequest,
    logits_of: Callable[[Tensor], Tensor] | None = None,
) -> list[Faithfulness]:
    """Test one map per image by deletion and insertion.

    Args:
        model: in evaluation mode.
        images: (B, C, H, W), normalised.
        heatmaps: (B, rows, columns), higher is more relevant; ties keep raster order.
        targets: int64 (B,), the class whose probability is watched.
        request: its steps (at most one per patch) and its task.
        logits_of: computes logits in the model's place.
    """
    grid = (heatmaps.shape[1], heatmaps.shape[2])
    patches = grid[0] * grid[1]
    steps = min(request.steps, patches)
    counts = torch.linspace(0, patches, steps + 1).round().long()
    ranks = heatmaps.flatten(1).cpu().argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    generator = torch.Generator().manual_seed(0)  # the same orders for every image and machine
    shuffled = torch.stack(
        [torch.randperm(patches, generator=generator) for _ in range(RANDOM_ORDERS)]
    )
    # first[i, c, s]: which patches of image i are among the first at step s of order c
    orders = torch.cat([ranks[:, None], shuffled.expand(len(images), -1, -1)], dim=1)
    first = orders[:, :, None] < counts[:, None]
    shown = torch.cat([first[:, :1], ~first], dim=1)  # insertion, deletion, random deletions
    # curves share their ends: each mask of an image is computed once
    unique = [masks.flatten(0, 1).unique(dim=0, return_inverse=True) for masks in shown]
    sizes = torch.tensor([len(masks) for masks, _ in unique])
    owners = torch.arange(len(images)).repeat_interleave(sizes)
    masks = torch.cat([masks for masks, _ in unique]).unflatten(1, grid)
    log_probs = masked_log_probs(model, images, owners, masks, targets, request, logits_of)
    per_image = log_probs.exp().split(sizes.tolist())
    curves = torch.stack([part[back] for part, (_, back) in zip(per_image, unique, strict=True)])
    curves = curves.unflatten(1, (RANDOM_ORDERS + 2, steps + 1))
    removed = (counts / patches).numpy()
    return [
        Faithfulness(
            removed=removed,
            insertion=each[0].numpy(),
            deletion=each[1].numpy(),
            random=each[2:].numpy(),
        )
        for each in curves
    ]
