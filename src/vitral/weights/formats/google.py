"""Google's npz files (vit_jax, big_vision, BiT): no configuration at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vitral.catalog.checkpoints import labels
from vitral.specs import ImageSpec
from vitral.weights import preprocessing
from vitral.weights.artifact import Card
from vitral.weights.checkpoint_files import Source
from vitral.weights.rename import RenameTable


def facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nothing."""
    return {}


def classes(config: Mapping[str, Any], count: int) -> tuple[str, ...] | None:
    """ImageNet's, which their 1000 logits are."""
    return labels("imagenet-1k") if count == 1000 else None


def images(source: Source, size: tuple[int, int]) -> ImageSpec:
    """[-1, 1], squashed to the size."""
    return preprocessing.google(size)


def files(card: Card, table: RenameTable) -> dict[str, Mapping[str, Any]]:
    """None."""
    return {}
