"""Google's npz files (vit_jax, big_vision, BiT): no configuration at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from vitral.specs import ImageSpec, ModelSpec
from vitral.specs.fields import pair
from vitral.weights.checkpoint_files import Source
from vitral.weights.formats.base import Config, Format, NotComparableError, Tensors
from vitral.weights.rename import Layout, RenameTable


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
        """BiT's names for a ResNet of v2, bit.py's for one of v1, the ViT's for all else."""
        if not spec.is_resnet or spec.resnet is None:
            return "google_vit"
        return "google_bit" if spec.resnet.kind == "v2" else "google_resnet"

    def refusals(self, table: RenameTable, spec: ModelSpec) -> Sequence[tuple[bool, str]]:
        """A class token that is not pooled."""
        unpooled = spec.class_token != (spec.pool == "cls")
        reason = "google has a class token where it is what is pooled, and nowhere else"
        return [(unpooled, f"{reason} (model.pool)")]

    def layout(self, table: RenameTable, spec: ModelSpec) -> Layout:
        """big_vision's names for the networks that vit_jax does not have."""
        layout = super().layout(table, spec)
        if table.name != "google_vit":
            return layout
        no_row = not (spec.class_token and spec.prefix_positions)
        variants = ("linen", "big_vision") if no_row or spec.pool == "map" else ()
        return replace(layout, variants=variants, wide=spec.resnet is not None)

    def oracle(
        self, spec: ModelSpec, tensors: Tensors, config: Config
    ) -> Callable[[Tensor], Tensor]:
        """Not: the authors' code runs on JAX; tests hold recordings of it."""
        raise NotComparableError("google publishes no library that runs beside torch")


format = Google()
