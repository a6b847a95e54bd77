"""torchvision's state dicts: no configuration; the classes and transforms of its weights."""

from __future__ import annotations

import importlib
import re

from torch import nn

from vitral.specs import ImageSpec, ModelSpec
from vitral.specs.fields import pair
from vitral.weights.checkpoint_files import Source
from vitral.weights.formats.base import Config, Format, Oracle, Tensors
from vitral.weights.preprocessing import IMAGENET, crop_fraction

PUBLISHED = re.compile(r"vit_\w+-[0-9a-f]{8}")


def read_preprocessing(name: str, size: int | tuple[int, int] = 224) -> ImageSpec:
    """Return the spec of weights.transforms() of torchvision's vision transformers.

    Args:
        name: of the weights' file, which tells them apart: "vit_b_16-c867db91" is IMAGENET1K_V1,
            "vit_b_16_swag-9ac1b537" the fine-tuned and "vit_b_16_lc_swag-4e70ced5" the linear one.
        size: of the images that the weights expect, in pixels.
    """
    size = pair("size", size)
    stem = name.partition("-")[0]
    mean, std = IMAGENET
    if size != (224, 224) or stem.endswith("swag"):
        return ImageSpec(size=size, interpolation="bicubic", mean=mean, std=std)
    resize = 242 if stem == "vit_l_16" else 256
    crop = crop_fraction(size, (resize, resize))
    return ImageSpec(size=size, crop=crop, interpolation="bilinear", mean=mean, std=std)


class Torchvision(Format):
    """The format of torchvision.models.VisionTransformer."""

    def assumed_preprocessing(self, source: Source) -> str:
        """Say that ImageNet's is taken, unless the file has the name of published weights."""
        if PUBLISHED.fullmatch(source.path.stem):
            return ""
        return "torchvision's files say nothing of how images are prepared: ImageNet's is assumed"

    def preprocessing(self, source: Source, size: tuple[int, int]) -> ImageSpec:
        """Take the transforms of the weights whose file name (vit_b_16-...) or size this is."""
        return read_preprocessing(source.path.stem, size)

    def table_for(self, spec: ModelSpec) -> str:
        """Choose the only table."""
        return "torchvision_vit"

    def oracle(self, spec: ModelSpec, tensors: Tensors, config: Config) -> Oracle:
        """Build its VisionTransformer of these sizes."""
        models = importlib.import_module("torchvision.models")
        model: nn.Module = models.VisionTransformer(
            image_size=spec.size[0],
            patch_size=spec.patch[0],
            num_layers=spec.depth,
            num_heads=spec.heads,
            hidden_dim=spec.width,
            mlp_dim=spec.mlp_width,
            num_classes=spec.classes,
            representation_size=spec.representation or None,
        )
        model.load_state_dict(dict(tensors))
        return model.eval()


format = Torchvision()
