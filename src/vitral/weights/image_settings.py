"""The preprocessing of one's own training loop, in any of the words that people have for it.

Taken are an ImageSpec or some of its fields, timm's data configuration, an image processor of
transformers, and the evaluation transform of torchvision. Nothing of those libraries is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from vitral.errors import UsageError
from vitral.specs import ImageSpec
from vitral.specs.fields import pair
from vitral.weights import preprocessing
from vitral.weights.formats import timm, transformers

TIMM = {"input_size", "crop_pct", "crop_mode"}
TRANSFORMERS = {"image_mean", "image_processor_type", "do_normalize", "do_resize"}
PRESET = ("crop_size", "resize_size", "mean", "std", "interpolation")  # of torchvision's weights
# steps that only change how a picture is held
CONVERSIONS = """
    ToTensor PILToTensor ToImage ToPureTensor ConvertImageDtype ToDtype ConvertDtype
    MaybeToTensor MaybePILToTensor ConvertImageMode RGB Identity
"""
RANDOM = ("Random", "AutoAugment", "AugMix", "TrivialAugment", "ColorJitter", "MixUp", "CutMix")


def image_spec(images: Any, size: tuple[int, int]) -> ImageSpec:
    """Return the ImageSpec that these settings mean for a network of (height, width) in pixels.

    Raises UsageError for settings of another kind, of another size or that an ImageSpec cannot say.
    """
    spec = _read(images, size)
    if spec.size != size:
        raise UsageError(
            f"The network reads {_by(size)} pixels, and `images` gives {_by(spec.size)}. Give the "
            "preprocessing that it was trained with."
        )
    return spec


def _read(images: Any, size: tuple[int, int]) -> ImageSpec:
    if isinstance(images, ImageSpec):
        return images
    if hasattr(images, "image_mean") and hasattr(images, "to_dict"):
        images = images.to_dict()
    if isinstance(images, Mapping):
        named = {str(name): value for name, value in images.items()}
        if TIMM & named.keys():
            return timm.read_preprocessing(named)
        if TRANSFORMERS & named.keys():
            return transformers.read_preprocessing(named)
        return ImageSpec.from_dict({"size": size, **named})
    if all(hasattr(images, name) for name in PRESET):
        return _of_steps([*_preset(images)])
    steps = getattr(images, "transforms", None)
    if isinstance(steps, Sequence):
        return _of_steps([(type(step).__name__, step) for step in steps])
    known = ", ".join(field.name for field in fields(ImageSpec))
    raise UsageError(
        f"`images` is an ImageSpec, a dictionary of its fields ({known}), timm's data "
        "configuration, an image processor of transformers, or torchvision's evaluation "
        f"transform; not {images!r:.60}."
    )


class _Step:
    """A step of a preset, with the attributes that the same step of Compose has."""

    def __init__(self, **values: Any) -> None:
        self.__dict__ = values


def _preset(images: Any) -> list[tuple[str, Any]]:
    resized = _Step(size=images.resize_size, interpolation=images.interpolation)
    return [
        ("Resize", resized),
        ("CenterCrop", _Step(size=images.crop_size)),
        ("ToTensor", None),
        ("Normalize", _Step(mean=images.mean, std=images.std)),
    ]


def _of_steps(steps: Sequence[tuple[str, Any]]) -> ImageSpec:
    """The steps of an evaluation in their order: resize, cut, convert, normalise."""
    goal: Any = None
    cut: Any = None
    values: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bilinear"}
    for name, step in steps:
        if name == "Resize" and cut is None and goal is None:
            goal = step.size
            kind = getattr(step, "interpolation", "bilinear")
            values["interpolation"] = str(getattr(kind, "value", kind))
        elif name == "CenterCrop" and goal is not None and cut is None:
            cut = step.size
        elif name == "Normalize":
            for key in ("mean", "std"):
                values[key] = tuple(float(value) for value in getattr(step, key))
        elif name not in CONVERSIONS.split():
            reason = "is one of training" if name.startswith(RANDOM) else "cannot be said"
            raise UsageError(
                f"The step {name} of the transform {reason}: give the one of evaluation (Resize, "
                "CenterCrop, ToTensor, Normalize), or an ImageSpec."
            )
    if goal is None:
        raise UsageError("The transform resizes nothing; give one with Resize, or an ImageSpec.")
    sides = list(goal) if isinstance(goal, list | tuple) else [goal]
    if len(sides) == 1 and cut is None:
        raise UsageError(
            f"Resize({sides[0]}) without CenterCrop leaves each picture its own shape; give "
            "Resize((height, width)) or both."
        )
    target = pair("Resize", sides[0] if len(sides) == 1 else sides)
    cuts = list(cut) if isinstance(cut, list | tuple) else [cut]
    size = target if cut is None else pair("CenterCrop", cuts[0] if len(cuts) == 1 else cuts)
    values["fit"] = "crop" if len(sides) == 1 else "squash"
    values["crop"] = preprocessing.crop_fraction(size, target)
    return ImageSpec.from_dict({**values, "size": size})


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
