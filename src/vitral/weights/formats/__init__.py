"""What the configuration files of each format say, and how to write them: a file a format.

Every format has the same four functions, and `of` finds it by name:
    facts(config) -> fields of ModelSpec          classes(config, count) -> names, or None
    images(source, size) -> ImageSpec             files(card, table) -> configuration files to write
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from vitral.specs import ImageSpec
from vitral.weights.artifact import Card
from vitral.weights.checkpoint_files import Source
from vitral.weights.formats import google, timm, torchvision, transformers
from vitral.weights.rename import RenameTable

NAMES = ("google", "timm", "torchvision", "transformers")


class Format(Protocol):
    """A module of this folder."""

    def facts(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of ModelSpec that the configuration tells and tensors may not."""

    def classes(self, config: Mapping[str, Any], count: int) -> tuple[str, ...] | None:
        """The names of the classes; None where nothing tells them."""

    def images(self, source: Source, size: tuple[int, int]) -> ImageSpec:
        """The preprocessing."""

    def files(self, card: Card, table: RenameTable) -> dict[str, Mapping[str, Any]]:
        """The configuration beside the weights, by file name; WeightsError if none."""


def of(name: str) -> Format:
    """The format of that name."""
    formats: dict[str, Any] = {
        "google": google,
        "timm": timm,
        "torchvision": torchvision,
        "transformers": transformers,
    }
    format: Format = formats[name]
    return format
