"""Google's npz files (vit_jax, big_vision, BiT): no configuration at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vitral.specs import ImageSpec, ModelSpec
from vitral.specs.fields import pair
from vitral.weights.checkpoint_files import Source
from vitral.weights.formats.base import Format
from vitral.weights.rename import Layout, RenameTable


def read_preprocessing(size: int | tuple[int, int]) -> ImageSpec:
    """Return Google's evaluation after fine-tuning: tf.image.resize to (height, width), [-1, 1]."""
    return ImageSpec(
        size=pair("size", size), fit="squash", interpolation="bilinear", resize="tensorflow"
    )


class Google(Format):
    """The format of flax trees as numpy archives."""

    suffixes = (".npz",)
    no_library = "google publishes no library that runs beside torch"

    def preprocessing(self, source: Source, size: tuple[int, int]) -> ImageSpec:
        """Prepare images in [-1, 1], squashed to the size."""
        return read_preprocessing(size)

    def assumed_preprocessing(self, source: Source) -> str:
        """Say that the authors' evaluation is taken."""
        return "Google's files do not say how images are prepared: its own evaluation is assumed"

    def table_for(self, spec: ModelSpec) -> str:
        """Choose BiT's names for a ResNet of v2, bit.py's for one of v1, else the ViT's."""
        if not spec.is_resnet or spec.resnet is None:
            return "google_vit"
        return "google_bit" if spec.resnet.kind == "v2" else "google_resnet"

    def refusals(self, table: RenameTable, spec: ModelSpec) -> Iterator[str]:
        """Refuse a class token that is not pooled."""
        if spec.class_token != (spec.pool == "cls"):
            yield "google has a class token where it is pooled, and nowhere else (model.pool)"

    def layout(self, table: RenameTable, spec: ModelSpec) -> Layout:
        """Take big_vision's names for the networks that vit_jax does not have."""
        layout = super().layout(table, spec)
        if table.name != "google_vit":
            return layout
        no_row = not (spec.class_token and spec.prefix_positions)
        variants = ("linen", "big_vision") if no_row or spec.pool == "map" else ()
        return replace(layout, variants=variants, wide=spec.resnet is not None)


format = Google()
