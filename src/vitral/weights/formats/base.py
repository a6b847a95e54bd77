"""The base of all checkpoint formats, with the answers of one without configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor

from vitral.catalog import wordnet
from vitral.specs import ImageSpec, ModelSpec
from vitral.weights.card import Card
from vitral.weights.checkpoint_files import Source
from vitral.weights.rename import Layout, RenameTable

Config = Mapping[str, Any]  # the content of a config.json
Tensors = Mapping[str, Tensor]
Oracle = Callable[[Tensor], Tensor]  # from images to logits


class NotComparableError(Exception):
    """Raised where there is no other library to compare with; its text is the reason."""


class Format:
    """A checkpoint format, of which a subclass overrides what its program does otherwise.

    Attributes:
        suffixes: of the files that its program reads; a folder is written with the first.
        configured: whether its program writes a config.json that tells what tensors do not.
        no_library: why there is no oracle, where there is none.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".safetensors", ".pth", ".pt", ".bin")
    configured: ClassVar[bool] = False
    no_library: ClassVar[str] = "there is no library of it that runs beside torch"

    # ---- reading

    def detect(self, config: Config) -> bool:
        """Tell whether a config.json is of this format."""
        return False

    def config_of(self, source: Source) -> Config | None:
        """Return the configuration of this format among what a source tells; None without one."""
        config = source.config
        return config if config is not None and self.detect(config) else None

    def facts(self, config: Config) -> dict[str, Any]:
        """Return the fields of ModelSpec that the configuration tells and tensors may not.

        Raises WeightsError for a setting of a network that Vitral does not have.
        """
        return {}

    def published_config(self, model: str | None) -> dict[str, Any] | None:
        """Return the configuration of published weights whose row in weights.toml names a model."""
        return None

    def classes(self, config: Config, count: int) -> tuple[str, ...] | None:
        """Name the classes, ImageNet's where there are so many; None if nothing tells them."""
        return tuple(wordnet.names(count).values()) or None

    def preprocessing(self, source: Source, size: tuple[int, int]) -> ImageSpec:
        """Return how its program prepares an image for a network of (height, width)."""
        raise NotImplementedError

    def labels(self, config: Config) -> Literal["one", "several"]:
        """Tell whether an image has one class or any number, each with a probability of its own."""
        return "one"

    def refuse_head(self, config: Config) -> str:
        """Say why the outputs of its head are no classes, a clause without its full stop, or ""."""
        return ""

    def assumed_preprocessing(self, source: Source) -> str:
        """Say why the preprocessing is a guess, a clause; "" where the source tells it."""
        return "nothing says how images are prepared: the usual of its program is assumed"

    def join(self, files: Mapping[str, Tensors]) -> Tensors | None:
        """Return the network that several checkpoints of a folder make together; None if none."""
        return None

    def refuse_unexpected(self, keys: Sequence[str]) -> str:
        """Say which network has these keys that no table knows; "" where nobody knows."""
        return ""

    def refuse_spec(self, spec: ModelSpec) -> str:
        """Say why its program computes the network of these tensors in another way, or ""."""
        return ""

    def guesses(self, table: RenameTable, source: Source, spec: ModelSpec) -> list[str]:
        """Say what of the spec no tensor and no configuration told, a sentence each."""
        if not self.configured or source.config is not None or spec.is_resnet:
            return []
        return [
            f"no config.json beside the tensors: GELU, epsilon and pooling are by {table.format}'s "
            "rule, heads and grid the usual; --set model.NAME=VALUE and --size say otherwise"
        ]

    # ---- writing

    def table_for(self, spec: ModelSpec) -> str:
        """Name the rename table that writes such a network."""
        raise NotImplementedError

    def refusals(self, table: RenameTable, spec: ModelSpec) -> Iterator[str]:
        """Say why its program cannot run the network, beside what the table says.

        Sentences without their full stop.
        """
        yield from ()

    def layout(self, table: RenameTable, spec: ModelSpec) -> Layout:
        """Return the layout of a new file of this network."""
        return Layout(table=table.name, prefix=table.prefix if spec.classes else "")

    def split(self, tensors: Tensors) -> Mapping[str, Tensors]:
        """Divide the tensors among the checkpoints of a folder, by file name without its suffix."""
        return {"model": tensors}

    def config_files(self, card: Card, table: RenameTable) -> dict[str, Config]:
        """Return the configuration beside the weights, by file name.

        Raises WeightsError where the program has no name for the network.
        """
        return {}

    def preprocessing_differences(self, images: ImageSpec) -> list[str]:
        """Say what its program would compute of an image in another way, a sentence each."""
        return []

    # ---- proving

    def oracle(self, spec: ModelSpec, tensors: Tensors, config: Config) -> Oracle:
        """Build the same network in its own library, with these tensors: images to logits.

        Raises NotComparableError where there is no such library, or it has no such network.
        """
        raise NotComparableError(self.no_library)
