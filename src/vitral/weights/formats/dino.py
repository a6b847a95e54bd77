"""DINO's and DINOv2's own files beside the plain backbones, which have timm's names.

What DINO saves while it trains (a backbone under its projection head, of the teacher), DINOv2's
classifiers as torch.hub builds them, and the two files that its authors publish for one, of a
backbone and of a linear head, in one folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vitral.specs import ImageSpec, ModelSpec
from vitral.weights.checkpoint_files import Source
from vitral.weights.formats.base import Format, Tensors
from vitral.weights.preprocessing import IMAGENET
from vitral.weights.rename import Layout, RenameTable

HEAD = {"weight", "bias"}  # all that a linear head's own file holds


class Dino(Format):
    """The format of backbones under a projection or a linear head."""

    suffixes = (".pth", ".pt", ".bin", ".safetensors")
    no_library = "the authors of DINO publish no package of their code"

    def preprocessing(self, source: Source, size: tuple[int, int]) -> ImageSpec:
        """Prepare images as both evaluate on ImageNet: 224 of 256 pixels, bicubic."""
        mean, std = IMAGENET
        return ImageSpec(size=size, crop=0.875, interpolation="bicubic", mean=mean, std=std)

    def assumed_preprocessing(self, source: Source) -> str:
        """Say that the authors' evaluation is taken."""
        return "DINO's files do not say how images are prepared: its own evaluation is assumed"

    def join(self, files: Mapping[str, Tensors]) -> Tensors | None:
        """Join a backbone and a linear head."""
        heads = [name for name, tensors in files.items() if tensors.keys() == HEAD]
        if len(files) != 2 or len(heads) != 1:
            return None
        backbone = next(tensors for name, tensors in files.items() if name not in heads)
        return None if HEAD & backbone.keys() else {**backbone, **files[heads[0]]}

    def split(self, tensors: Tensors) -> Mapping[str, Tensors]:
        """Divide a backbone and its head again, where they were apart."""
        apart = {
            "backbone": {name: x for name, x in tensors.items() if name not in HEAD},
            "linear_head": {name: x for name, x in tensors.items() if name in HEAD},
        }
        return apart if apart["linear_head"] else super().split(tensors)

    def refuse_unexpected(self, keys: Sequence[str]) -> str:
        """Refuse a linear head without its backbone."""
        if set(keys) == HEAD:
            return (
                "is a linear head alone. Put it into one folder with the file of its backbone, "
                "and give the folder."
            )
        return ""

    def refuse_spec(self, spec: ModelSpec) -> str:
        """Refuse a linear head that is no head of DINOv2."""
        if spec.classes and spec.pool != "cls_mean":
            return (
                f"has a linear head for {spec.pooled_width} values, and DINOv2's read the class "
                "token beside the mean of the patches."
            )
        return ""

    def table_for(self, spec: ModelSpec) -> str:
        """Choose by the head."""
        return "dino_linear" if spec.classes else "dino_vit"

    def layout(self, table: RenameTable, spec: ModelSpec) -> Layout:
        """Lay a file out as torch.hub builds the network, of DINOv2 where there are registers."""
        layout = super().layout(table, spec)
        return replace(layout, variants=("registers",)) if spec.registers else layout


format = Dino()
