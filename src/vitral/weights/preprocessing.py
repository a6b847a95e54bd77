"""The evaluation preprocessing of other formats as an ImageSpec, and back.

    from_timm(pretrained_cfg)      to_timm(spec)            timm's pretrained_cfg
    from_transformers(config)      to_transformers(spec)    transformers' preprocessor_config.json
    from_torchvision("vit_b_16-c867db91", 224)              torchvision's weights.transforms()
    google((224, 224))                                      vision_transformer, after fine-tuning

What an ImageSpec cannot say is a WeightsError that names it. What the other format computes in
another way, a pixel's shift of the cut or the resize, is told by `differences`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from vitral.errors import SpecError, WeightsError
from vitral.specs import ImageSpec
from vitral.specs.fields import pair

_HALF = (0.5, 0.5, 0.5)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

_CROP_MODES = {"center": "crop", "squash": "squash", "border": "pad"}

# Pillow's numbers, which transformers writes.
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}

# What each image processor of transformers does with a key that its file does not hold.
_PROCESSORS: dict[str, dict[str, Any]] = {
    "ViT": {"size": (224, 224), "resample": 2, "image_mean": _HALF, "image_std": _HALF},
    "DeiT": {
        "size": (256, 256),
        "crop_size": 224,
        "do_center_crop": True,
        "resample": 3,
        "image_mean": _HALF,
        "image_std": _HALF,
    },
    "Bit": {
        "size": {"shortest_edge": 224},
        "crop_size": 224,
        "do_center_crop": True,
        "resample": 3,
        "image_mean": _CLIP[0],
        "image_std": _CLIP[1],
    },
    "DINOv3ViT": {
        "size": (224, 224),
        "resample": 2,
        "image_mean": _IMAGENET[0],
        "image_std": _IMAGENET[1],
    },
    "Siglip": {"size": (224, 224), "resample": 3, "image_mean": _HALF, "image_std": _HALF},
}
_PROCESSORS["CLIP"] = _PROCESSORS["Bit"]
_KEEPS_SHAPE = ("Bit", "CLIP", "Siglip")  # an integer size is their shorter side, not a square


def google(size: int | tuple[int, int]) -> ImageSpec:
    """Google's evaluation after fine-tuning: tf.image.resize to (height, width), [-1, 1]."""
    return ImageSpec(
        size=pair("size", size), fit="squash", interpolation="bilinear", resize="tensorflow"
    )


def from_torchvision(name: str, size: int | tuple[int, int] = 224) -> ImageSpec:
    """What weights.transforms() of torchvision's vision transformers does.

    Args:
        name: of the weights' file, which tells them apart: "vit_b_16-c867db91" is IMAGENET1K_V1,
            "vit_b_16_swag-9ac1b537" the fine-tuned and "vit_b_16_lc_swag-4e70ced5" the linear one.
        size: of the images that the weights expect, in pixels.
    """
    size = pair("size", size)
    stem = name.partition("-")[0]
    mean, std = _IMAGENET
    if size != (224, 224) or stem.endswith("swag"):
        return ImageSpec(size=size, interpolation="bicubic", mean=mean, std=std)
    resize = 242 if stem == "vit_l_16" else 256
    crop = _fraction(size, (resize, resize))
    return ImageSpec(size=size, crop=crop, interpolation="bilinear", mean=mean, std=std)


def from_timm(pretrained_cfg: Mapping[str, Any], *, test_size: bool = False) -> ImageSpec:
    """The spec of timm.data.create_transform for a model's pretrained_cfg.

    Args:
        pretrained_cfg: as in a model's config.json; a key that is missing, None or empty takes
            timm's default (224, bicubic, crop_pct 0.875, ImageNet's mean and std).
        test_size: take test_input_size and test_crop_pct where the configuration holds them.
    """

    def value(name: str, default: Any) -> Any:
        if test_size and pretrained_cfg.get(f"test_{name}"):
            return pretrained_cfg[f"test_{name}"]
        return pretrained_cfg.get(name) or default

    with _told_of("timm"):
        size = tuple(value("input_size", (3, 224, 224)))
        if len(size) != 3 or size[0] != 3:
            raise WeightsError(f"timm's input_size is (3, height, width), not {size}.")
        mode = value("crop_mode", "center")
        if mode not in _CROP_MODES:
            raise WeightsError(f"timm's crop_mode '{mode}' is none of {', '.join(_CROP_MODES)}.")
        return ImageSpec.from_dict(
            {
                "size": size[1:],
                "fit": _CROP_MODES[mode],
                "crop": value("crop_pct", 0.875),
                "interpolation": value("interpolation", "bicubic"),
                "mean": _per_channel(value("mean", _IMAGENET[0])),
                "std": _per_channel(value("std", _IMAGENET[1])),
            }
        )


def to_timm(spec: ImageSpec) -> dict[str, Any]:
    """The keys of a pretrained_cfg with which timm gives the same tensor; see `differences`."""
    modes = {fit: mode for mode, fit in _CROP_MODES.items()}
    return {
        "input_size": [3, *spec.size],
        "interpolation": spec.interpolation,
        "crop_pct": spec.crop,
        "crop_mode": modes[spec.fit],
        "mean": list(spec.mean),
        "std": list(spec.std),
    }


def from_transformers(config: Mapping[str, Any]) -> ImageSpec:
    """The spec of a preprocessor_config.json, of this or an older transformers.

    Known are the image processors (and, before them, feature extractors) of ViT, DeiT, Bit (which
    DINOv2 uses), DINOv3ViT, CLIP and Siglip; a file that does not name one is ViT's.
    """
    kind = config.get("image_processor_type") or config.get("feature_extractor_type") or "ViT"
    stem = str(kind)
    for suffix in ("Fast", "Pil", "ImageProcessor", "FeatureExtractor"):
        stem = stem.removesuffix(suffix)
    if stem not in _PROCESSORS:
        known = ", ".join(_PROCESSORS)
        raise WeightsError(f"The image processor '{kind}' is not known; known: {known}.")
    own = {key: value for key, value in config.items() if value is not None}
    values = {"do_resize": True, "do_rescale": True, "do_normalize": True} | _PROCESSORS[stem] | own
    for key, wanted in (("do_resize", True), ("do_pad", False), ("do_flip_channel_order", False)):
        if values.get(key, wanted) is not wanted:
            raise WeightsError(f"An ImageSpec cannot say {key} = {not wanted} of '{kind}'.")
    resample = values["resample"]
    with _told_of("transformers"):
        goal, fit = _goal(values["size"], square=stem not in _KEEPS_SHAPE)
        cut = bool(values.get("do_center_crop"))
        if fit == "crop" and not cut:
            raise WeightsError("Without do_center_crop each image keeps its own shape.")
        size = _sides("crop_size", values.get("crop_size", 224)) if cut else goal
        mean, std = _normalisation(values)
        return ImageSpec.from_dict(
            {
                "size": size,
                "fit": fit,
                "crop": _fraction(size, goal),
                "centre": "floor" if cut else "round",
                "interpolation": _RESAMPLING.get(resample, resample)
                if isinstance(resample, int)
                else resample,
                "resize": "torch" if stem == "DINOv3ViT" else "pillow",
                "mean": mean,
                "std": std,
            }
        )


def to_transformers(spec: ImageSpec) -> dict[str, Any]:
    """A preprocessor_config.json with which transformers gives the same tensor.

    Raises WeightsError for fit = "pad" and what else it has no words for; see `differences` too.
    """
    goal = _resized(spec)
    if spec.fit == "pad":
        raise WeightsError('transformers cannot say fit = "pad": choose "crop" or "squash".')
    if spec.fit == "crop" and goal[0] != goal[1]:
        raise WeightsError(f"transformers cannot resize to cover {goal}, which is not square.")
    cut = spec.fit == "crop" or goal != spec.size
    sides = dict(zip(("height", "width"), goal, strict=True))
    values: dict[str, Any] = {
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": goal[0]} if spec.fit == "crop" else sides,
        "resample": {name: number for number, name in _RESAMPLING.items()}[spec.interpolation],
        "do_center_crop": cut,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.mean),
        "image_std": list(spec.std),
    }
    if cut:
        values["crop_size"] = dict(zip(("height", "width"), spec.size, strict=True))
    kind = "Bit" if spec.fit == "crop" else "DeiT" if cut else "ViT"
    kind = "DINOv3ViT" if spec.resize == "torch" else kind  # the only one that resizes floats
    return {"image_processor_type": f"{kind}ImageProcessor", **values}


def differences(spec: ImageSpec, format: str) -> list[str]:
    """Sentences on what `format` would compute in another way than Vitral does, for to_timm and
    to_transformers; none if its tensor is the same."""
    found = []
    centre = {"timm": "round", "transformers": "floor"}[format]
    margins = [goal - side for goal, side in zip(_resized(spec), spec.size, strict=True)]
    same = all(round(margin / 2) == margin // 2 for margin in margins)
    depends = spec.fit == "crop" or not same or (spec.fit == "pad" and any(margins))
    if spec.centre != centre and depends:
        found.append(
            f'{format} cuts with centre = "{centre}", this model with "{spec.centre}": the cut of '
            f"some shapes lies one pixel aside."
        )
    if spec.resize == "tensorflow":
        found.append(
            f"{format} antialiases where it shrinks an image; this model expects it not to."
        )
    if spec.resize == "torch" and format == "timm":
        found.append("timm rounds to 8 bits between rows and columns; this model expects floats.")
    return found


def _resized(spec: ImageSpec) -> tuple[int, int]:
    return int(spec.size[0] / spec.crop), int(spec.size[1] / spec.crop)


def _fraction(size: tuple[int, int], goal: tuple[int, int]) -> float:
    """The crop of which ImageSpec's floor(size / crop) is exactly the goal."""
    crop = min(size[0] / goal[0], size[1] / goal[1])
    for candidate in (crop, math.nextafter(crop, 0.0)):  # 224 / (224 / 242) may fall below 242
        if tuple(int(side / candidate) for side in size) == goal:
            return candidate
    raise WeightsError(f"An ImageSpec cannot say: resize to {goal}, then cut {size}.")


def _goal(size: Any, *, square: bool) -> tuple[tuple[int, int], str]:
    """((height, width), fit) from transformers' size: an integer, a pair or named sides."""
    if isinstance(size, int) and not square:
        size = {"shortest_edge": size}
    if isinstance(size, Mapping) and set(size) == {"shortest_edge"}:
        return pair("shortest_edge", size["shortest_edge"]), "crop"
    return _sides("size", size), "squash"


def _sides(name: str, value: Any) -> tuple[int, int]:
    if isinstance(value, Mapping):
        if set(value) != {"height", "width"}:
            raise WeightsError(f"An ImageSpec cannot say transformers' {name} = {dict(value)}.")
        value = (value["height"], value["width"])
    return pair(name, value)


def _normalisation(values: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of values in [0, 1] for transformers' (pixel × factor - mean) / std."""
    factor = values.get("rescale_factor", 1 / 255) if values["do_rescale"] else 1.0
    if not isinstance(factor, int | float) or not 0 < factor < math.inf:
        raise WeightsError(f"transformers' rescale_factor is a number above 0, not {factor!r}.")
    scale = 1.0 if math.isclose(255 * factor, 1) else 255 * factor
    mean = values["image_mean"] if values["do_normalize"] else 0.0
    std = values["image_std"] if values["do_normalize"] else 1.0
    mean, std = (_per_channel(part) for part in (mean, std))
    return tuple(value / scale for value in mean), tuple(value / scale for value in std)


def _per_channel(value: Any) -> tuple[float, ...]:
    """One number per channel from one number or several."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not values or not all(type(part) in (int, float) for part in values):
        raise WeightsError(f"mean and std are numbers, not {value!r}.")
    return values * 3 if len(values) == 1 else values


@contextmanager
def _told_of(format: str) -> Iterator[None]:
    """Say of what an ImageSpec refuses whose preprocessing it was."""
    try:
        yield
    except SpecError as error:
        raise WeightsError(
            f"The preprocessing of {format} cannot be taken over: {error}"
        ) from error


__all__ = [
    "differences",
    "from_timm",
    "from_torchvision",
    "from_transformers",
    "google",
    "to_timm",
    "to_transformers",
]
