"""An explanation made of chosen numbers, and a network that is easily explained, for the tests."""

from typing import Any

import numpy as np
import torch
from networks import randomised, tiny

from vitral.explanation import Explanation
from vitral.explanation.findings import Faithfulness, Internals
from vitral.model import ViT

NAMES = ("cat", "골프공", "<b>$x_1$ & \x07")


def scored(points: int = 11) -> Faithfulness:
    """Scores of 0.3 in both directions: areas 0.2 and 0.8 beside random orders of 0.5."""
    even = np.linspace(0, 1, points, dtype=np.float32)
    return Faithfulness(
        removed=even,
        deletion=np.full(points, 0.2, np.float32),
        insertion=np.full(points, 0.8, np.float32),
        random=np.stack([np.full(points, value, np.float32) for value in (0.45, 0.5, 0.55)]),
    )


def kept(grid: tuple[int, int], layers: int, heads: int, classes: int) -> Internals:
    random = np.random.default_rng(1)
    patches = grid[0] * grid[1]

    def some(*shape: int) -> np.ndarray:
        return random.random(shape).astype(np.float32)

    layer_logits = some(layers + 1, classes)
    return Internals(
        attention=np.full((layers, heads, patches + 1, patches + 1), 1 / (patches + 1), np.float32),
        rollout=some(patches + 1, patches + 1),
        rollout_no_residual=some(patches + 1, patches + 1),
        rollout_heatmap=some(*grid),
        rollout_no_residual_heatmap=some(*grid),
        occlusion=some(*grid) if classes else None,
        relevance=some(*grid) if classes else None,
        attention_maps=some(layers, heads, *grid),
        layer_logits=layer_logits,
        layer_probabilities=np.exp(layer_logits) / np.exp(layer_logits).sum(axis=1, keepdims=True),
        norms=some(3, layers, heads, patches + 1),
        cosines=some(patches, patches),
        layer=layers,
    )


def explanation(
    classes: Any = NAMES,
    grid: tuple[int, int] = (4, 4),
    heads: int = 3,
    layers: int = 2,
    size: tuple[int, int] = (32, 32),
    internals: bool = True,
    tested: bool = True,
    **changes: Any,
) -> Explanation:
    random = np.random.default_rng(0)
    heatmap = random.random(grid).astype(np.float32)
    values: dict[str, Any] = {
        "picture": random.integers(0, 256, (*size, 3), dtype=np.uint8),
        "grid": grid,
        "prefix": ("class token",),
        "heatmap": heatmap / heatmap.sum(),
        "probabilities": np.linspace(0.5, 0.1, len(classes), dtype=np.float32),
        "classes": tuple(classes),
        "method": "occlusion" if classes else "rollout",
        "target": classes[0] if classes else None,
        "faithfulness": _TEST if tested and classes else None,
        "internals": kept(grid, layers, heads, len(classes)) if internals else None,
    }
    return Explanation(**(values | changes))


def only_one_patch_matters(**changes) -> ViT:
    """Dark patches speak against the first class, bright ones for it, by attention or the mean."""
    spec = tiny(size=(64, 64), depth=1, width=16, heads=1, positions="none", classes=2, **changes)
    model = randomised(spec).float()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "qkv" in name or "mlp" in name or "bias" in name or "cls" in name:
                value.zero_()
        model.patches.weight.fill_(0)
        model.patches.weight[0], model.patches.bias[0] = 1 / 768, -0.3
        if model.cls is not None:
            model.cls[..., 1] = 1.0
        for block in model.blocks:
            block.attention.qkv.weight[0, 1] = 4.0  # the class token asks
            block.attention.qkv.weight[16, 0] = 4.0  # for tokens that are bright
            block.attention.qkv.weight[32, 0] = 1.0  # and takes how bright they are
            block.attention.out.weight.copy_(torch.eye(16) * (1 if model.cls is not None else 0.01))
        model.head.weight.zero_()
        model.head.weight[0, 0], model.head.weight[1, 0] = 1.0, -1.0
        model.head.bias[0] = 0.0 if model.cls is not None else 7.0
    return model


_TEST = scored()
