"""What a checkpoint format knows of itself, with the answers of a format without configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from vitral.catalog.checkpoints import labels
from vitral.specs import ImageSpec, ModelSpec
from vitral.weights.artifact import Card
from vitral.weights.checkpoint_files import Source
from vitral.weights.rename import Layout, RenameTable

Config = Mapping[str, Any]  # the content of a config.json
Tensors = Mapping[str, Tensor]


class NotComparableError(Exception):
    """There is no other library to compare with; the reason is its text."""


class Format:
    """A checkpoint format; a subclass overrides what its program does otherwise.

    Attributes:
        suffixes: of the files that its program reads; a folder is written with the first.
        configured: whether its program writes a config.json that tells what tensors do not.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".safetensors", ".pth", ".pt", ".bin")
    configured: ClassVar[bool] = False

    # ---- reading

    def detect(self, config: Config) -> bool:
        """Whether a config.json is of this format."""
        return False

    def facts(self, config: Config) -> dict[str, Any]:
        """Fields of ModelSpec that the configuration tells and tensors may not.

        Raises WeightsError for a setting of a network that Vitral does not have.
        """
        return {}

    def published_config(self, model: str | None) -> dict[str, Any] | None:
        """The configuration of published weights whose row in weights.toml names a model."""
        return None

    def classes(self, config: Config, count: int) -> tuple[str, ...] | None:
        """The names of the classes, ImageNet's of a thousand; None where nothing tells them."""
        return labels("imagenet-1k") if count == 1000 else None

    def preprocessing(self, source: Source, size: tuple[int, int]) -> ImageSpec:
        """How its program prepares an image for a network of (height, width)."""
        raise NotImplementedError

    def refuse_unexpected(self, keys: Sequence[str]) -> str:
        """What network has these keys that no row of a table knows; "" where nobody knows."""
        return ""

    def refuse_spec(self, spec: ModelSpec) -> str:
        """Why a network that its tensors seem to make is computed in another way there, or ""."""
        return ""

    def guesses(self, table: RenameTable, source: Source, spec: ModelSpec) -> list[str]:
        """What of the spec no tensor and no configuration told, a sentence each."""
        if not self.configured or source.config is not None or spec.is_resnet:
            return []
        return [
            f"no config.json beside the tensors: GELU, epsilon and pooling are by {table.format}'s "
            "rule, heads and grid the usual; --set model.NAME=VALUE and --size say otherwise"
        ]

    # ---- writing

    def table_for(self, spec: ModelSpec) -> str:
        """The rename table that writes such a network."""
        raise NotImplementedError

    def refusals(self, table: RenameTable, spec: ModelSpec) -> Sequence[tuple[bool, str]]:
        """What the format cannot hold beside what the table says: (whether it is so, a reason)."""
        return ()

    def layout(self, table: RenameTable, spec: ModelSpec) -> Layout:
        """How a new file of this network is laid out."""
        return Layout(table=table.name, prefix=table.prefix if spec.classes else "")

    def config_files(self, card: Card, table: RenameTable) -> dict[str, Config]:
        """The configuration beside the weights, by file name.

        Raises WeightsError where the program has no name for the network.
        """
        return {}

    def preprocessing_differences(self, images: ImageSpec) -> list[str]:
        """What its program would compute of an image in another way, a sentence each."""
        return []

    # ---- proving

    def oracle(
        self, spec: ModelSpec, tensors: Tensors, config: Config
    ) -> Callable[[Tensor], Tensor]:
        """The same network in its own library, with these tensors: images to logits.

        Raises NotComparableError where there is no such library, or it has no such network.
        """
        raise NotComparableError("there is no library of it that runs beside torch")
