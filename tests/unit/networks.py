"""Small networks with no value left at zero or one, for the tests of the model room."""

from dataclasses import replace
from typing import Any

import torch

from vitral.model import ViT, build
from vitral.specs import Dropouts, ModelSpec, ResNetSpec

TINY = ModelSpec(
    name="tiny", size=(32, 48), patch=(16, 16), width=32, depth=2, heads=4, mlp_width=48, classes=5
)
STEM = ResNetSpec(blocks=(1, 1), width=32)
BIT = ResNetSpec(
    kind="v2",
    blocks=(1, 2),
    width=32,
    norm_eps=1e-5,
    weight_eps=1e-10,
    weight_eps_in="var",
    root_pool="zero",
)


def tiny(**changes: Any) -> ModelSpec:
    return replace(TINY, **changes)


def tiny_bit(**changes: Any) -> ModelSpec:
    absent = {"depth": 0, "heads": 0, "mlp_width": 0, "class_token": False, "positions": "none"}
    whole = {"resnet": BIT, "width": 256, "patch": 1, "pool": "mean", **absent}
    return replace(TINY, **(whole | changes))


def tiny_resnet(**changes: Any) -> ModelSpec:
    """ResNet v1 as a whole network."""
    return tiny_bit(**({"resnet": ResNetSpec(blocks=(1, 2), width=32)} | changes))


def randomised(spec: ModelSpec, seed: int = 0, *, checkpointing: bool = False, **rates: Any) -> ViT:
    """In float64, evaluating, every parameter random and of a size that matters."""
    model = build(spec, Dropouts(**rates), checkpointing=checkpointing).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.normal_(std=0.3, generator=generator)
            if "norm" in name and name.endswith("weight"):
                value.add_(1)
    return model


def pictures(spec: ModelSpec, batch: int = 2, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, spec.channels, *spec.size)
    return torch.randn(shape, generator=generator, dtype=torch.float64)
