"""Google's npz files (vit_jax, big_vision, BiT): no configuration at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from vitral.specs import ImageSpec, ModelSpec
from vitral.specs.fields import pair
from vitral.weights.checkpoint_files import Source
from vitral.weights.formats.base import Config, Format, NotComparableError, Tensors
from vitral.weights.rename import RenameTable


def read_preprocessing(size: int | tuple[int, int]) -> ImageSpec:
    """Google's evaluation after fine-tuning: tf.image.resize to (height, width), [-1, 1]."""
    return ImageSpec(
        size=pair("size", size), fit="squash", interpolation="bilinear", resize="tensorflow"
    )


class Google(Format):
    """Flax trees as numpy archives."""

    suffixes = (".npz",)

    def preprocessing(self, source: Source, size: tuple[int, int]) -> ImageSpec:
        """[-1, 1], squashed to the size."""
        return read_preprocessing(size)

    def table_for(self, spec: ModelSpec) -> str:
        """BiT's names for a ResNet, the Vision Transformer's for all else."""
        return "google_bit" if spec.is_resnet else "google_vit"

    def refusals(self, table: RenameTable, spec: ModelSpec) -> Sequence[tuple[bool, str]]:
        """A class token that is not pooled."""
        unpooled = spec.class_token != (spec.pool == "cls")
        reason = "google has a class token where it is what is pooled, and nowhere else"
        return [(unpooled, f"{reason} (model.pool)")]

    def variants(self, table: RenameTable, spec: ModelSpec) -> tuple[str, ...]:
        """big_vision's names for the networks that vit_jax does not have."""
        no_row = not (spec.class_token and spec.prefix_positions)
        big_vision = table.name == "google_vit" and (no_row or spec.pool == "map")
        return ("linen", "big_vision") if big_vision else ()

    def oracle(
        self, spec: ModelSpec, tensors: Tensors, config: Config
    ) -> Callable[[Tensor], Tensor]:
        """Not: the authors' code runs on JAX; tests hold recordings of it."""
        raise NotComparableError("google publishes no library that runs beside torch")


format = Google()
