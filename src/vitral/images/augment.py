"""Make training views and mixed batches, thin over torchvision.transforms.v2; see specs.Augment.

    view = train_view(data, augment, spec, seed)                  # uint8 (3, height, width)
    images, targets = mix(images, labels, classes, augment, seed) # targets (B, classes)

The only file that imports torchvision, and only once an operation of it is asked for.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitral.images import randaugment
from vitral.images.arrow import channels
from vitral.images.crops import rectangle
from vitral.images.decode import Picture
from vitral.images.preprocess import (
    covered,
    mean_colour,
    pad,
    pixels,
    resize,
    resize_floats,
    shown_aspect,
)
from vitral.images.seeds import seeded, uniform
from vitral.specs import ImageSpec
from vitral.specs.augment import Augment

# torchvision registers shapes for these two at import, which fails where its compiled part was
# built for another torch (the CUDA wheel beside a CPU torch); nothing here ever calls them.
_OPERATORS = ("nms", "qnms")
_libraries: list[torch.library.Library] = []


@dataclass(frozen=True, slots=True)
class View:
    """One picture of a sample that an objective sees: how it is changed, and how large it is.

    Attributes:
        augment: the random changes.
        images: the size of the result, and how the picture is resized to it.
    """

    augment: Augment
    images: ImageSpec


@cache
def transforms() -> Any:
    """Imports the module torchvision.transforms.v2."""
    try:
        return importlib.import_module("torchvision.transforms.v2")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _OPERATORS:
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)  # the operators vanish with the library
    return importlib.import_module("torchvision.transforms.v2")


def prepare(augment: Augment, spec: ImageSpec) -> None:
    """Imports and builds what the views of a setting need, before worker processes start."""
    _operations(augment, spec)


def train_view(source: bytes | np.ndarray, augment: Augment, spec: ImageSpec, seed: int) -> Tensor:
    """Makes a random view of an image, a function of the arguments alone: uint8 (3, height, width).

    Raises DataError, with the reason in a sentence, if the image cannot be read.
    """
    view = flip(cut(source, augment, spec, seed), augment, seed)
    return alter(view[None].contiguous(), augment, spec, [seed])[0]


def cut(source: bytes | np.ndarray, augment: Augment, spec: ImageSpec, seed: int) -> Tensor:
    """Crops one image, the first part of train_view: uint8 (3, height, width)."""
    if augment.crop == "inception":
        return _random_crop(source, augment, spec, seed)
    return pixels(source, spec)


def flip(view: Tensor, augment: Augment, seed: int) -> Tensor:
    """Mirrors a view (3, H, W) or leaves it, the second part of train_view."""
    return view.flip(-1) if augment.flip and uniform(seed, "flip", 1)[0] < augment.flip else view


def alter(views: Tensor, augment: Augment, spec: ImageSpec, seeds: Sequence[int]) -> Tensor:
    """Warps and recolours a whole batch (B, 3, H, W) uint8, the last part of train_view."""
    if augment.warps and len(views):
        views = _warped(views, augment, seeds)
    if augment.randaugment and augment.flavour != "torchvision":
        for view, seed in zip(views, seeds, strict=True):
            view.copy_(_randaugment(view, augment, spec, seed))
    operations = _operations(augment, spec)
    if operations is not None:
        for index, seed in enumerate(seeds):
            with seeded(seed):
                views[index] = operations(views[index])
    return views


def mix(
    images: Tensor,
    labels: Tensor,
    classes: int,
    augment: Augment,
    seed: int,
    mix_partner: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Mixes each image with the one before it: (B, 3, H, W) float, targets (B, classes) float32.

    One weight or rectangle for all of a step's images, so pass the same seed for every part of a
    step. In mixup the image itself keeps at least half of the weight, as in the authors' code.
    Without mixup and cutmix the images come back as they are.

    Args:
        images: float (B, 3, H, W).
        labels: class indices (B,), whose targets sum to 1, or multi-label, (B, classes).
        classes: number of classes.
        augment: its mixup and cutmix.
        seed: of the step.
        mix_partner: image (1, 3, H, W) and label of the sample before the first, where the images
            are only a part of a step (Batch.mix_partner); otherwise it is the last one.
    """
    targets = labels if labels.ndim == 2 else torch.nn.functional.one_hot(labels, classes)
    targets = targets.to(torch.float32)
    if not augment.mixes or not len(images):
        return images, targets
    if mix_partner is None:
        others = images.roll(1, 0)
        their_targets = targets.roll(1, 0)
    else:
        _, first = mix(*mix_partner, classes, Augment(), seed)
        others = torch.cat([mix_partner[0], images[:-1]])
        their_targets = torch.cat([first, targets[:-1]])
    v2 = transforms()
    kinds = [
        kind(alpha=alpha, num_classes=classes)
        for kind, alpha in ((v2.MixUp, augment.mixup), (v2.CutMix, augment.cutmix))
        if alpha > 0
    ]
    with seeded(seed):
        drawn = kinds[int(torch.randint(len(kinds), ()))].make_params([images])
    if "box" in drawn:
        x1, y1, x2, y2 = drawn["box"]
        share = drawn["lam_adjusted"]
        mixed = images.clone()
        mixed[..., y1:y2, x1:x2] = others[..., y1:y2, x1:x2]
    else:
        share = max(drawn["lam"], 1 - drawn["lam"])
        mixed = others.mul_(1 - share).add_(images * share)
    return mixed, targets * share + their_targets * (1 - share)


def _random_crop(
    source: bytes | np.ndarray, augment: Augment, spec: ImageSpec, seed: int
) -> Tensor:
    """A random rectangle resized to what evaluation makes of the whole picture.

    Its aspect is near that of the part that evaluation shows, so that what is stretched there is
    stretched as much here, and nothing else is. JPEG decodes no finer than the crop needs.
    """
    picture = Picture(source, spec)
    height, width = picture.size
    goal = covered((height, width), spec)
    top, left, h, w = rectangle((height, width), augment, seed, shown_aspect((height, width), spec))
    finest = min(h / goal[0], w / goal[1])
    coarser = finest > 1 and spec.antialias  # a coarser image is an averaged one
    shrink = (math.ceil(height / finest), math.ceil(width / finest)) if coarser else None
    image = picture.decode(shrink)
    down = image.height / height
    across = image.width / width
    y = min(round(top * down), image.height - 1)
    x = min(round(left * across), image.width - 1)
    bottom = max(round((top + h) * down), y + 1)
    right = max(round((left + w) * across), x + 1)
    part = channels(image)[y:bottom, x:right]
    if spec.antialias:
        view = resize(part, goal, spec.interpolation)[:3]
    else:
        view = resize_floats(part[:, :, :3], goal, spec)
    if goal == spec.size:
        return view
    return torch.from_numpy(pad(view.permute(1, 2, 0).numpy(), spec)).permute(2, 0, 1)


def _warped(views: Tensor, augment: Augment, seeds: Sequence[int]) -> Tensor:
    """A random affine map of each view about its centre; what comes from outside is black."""
    height, width = views.shape[-2:]
    drawn = np.array([uniform(seed, "warp", 5) for seed in seeds])
    spread = 2 * drawn - 1
    turn = np.radians(spread[:, 0] * augment.rotate)
    slant = np.radians(spread[:, 1] * augment.shear)
    zoom = augment.zoom[0] * (augment.zoom[1] / augment.zoom[0]) ** drawn[:, 2]
    across = 2 * augment.translate * spread[:, 3]
    down = 2 * augment.translate * spread[:, 4]
    # From a place in the result to its place in the view: the inverse of slant, zoom and turn.
    cosine = np.cos(turn) / zoom
    sine = np.sin(turn) / zoom
    slope = np.tan(slant)
    stretch = height / width  # grid_sample counts each side from -1 to 1
    maps = np.empty((len(seeds), 2, 3), np.float32)
    maps[:, 0, 0] = cosine + slope * sine
    maps[:, 0, 1] = (slope * cosine - sine) * stretch
    maps[:, 1, 0] = sine / stretch
    maps[:, 1, 1] = cosine
    maps[:, 0, 2] = -maps[:, 0, 0] * across - maps[:, 0, 1] * down
    maps[:, 1, 2] = -maps[:, 1, 0] * across - maps[:, 1, 1] * down
    functional = torch.nn.functional
    grid = functional.affine_grid(torch.from_numpy(maps), list(views.shape), align_corners=False)
    warped = functional.grid_sample(views.to(torch.float32), grid, align_corners=False)
    return warped.round_().to(torch.uint8)


def _randaugment(view: Tensor, augment: Augment, spec: ImageSpec, seed: int) -> Tensor:
    """What torchvision lacks of RandAugment, on a view (3, H, W) uint8."""
    layers, magnitude = augment.randaugment or (0, 0)
    image = view.permute(1, 2, 0).contiguous().numpy()
    if augment.flavour == "big_vision":
        image = randaugment.big_vision(image, layers, magnitude, seed)
    else:
        image = randaugment.timm(image, layers, magnitude, mean_colour(spec), seed)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@cache
def _operations(augment: Augment, spec: ImageSpec) -> Any:
    """The torchvision operations of a setting on a uint8 view, or None if there is none."""
    steps: list[Any] = []
    fill = list(mean_colour(spec))
    if augment.randaugment and augment.flavour == "torchvision":
        layers, magnitude = augment.randaugment
        steps.append(transforms().RandAugment(layers, magnitude, fill=fill))
    if augment.trivial:
        steps.append(transforms().TrivialAugmentWide(fill=fill))
    if augment.three:
        steps.append(_three_augment())
    if augment.jitter:
        steps.append(transforms().ColorJitter(augment.jitter, augment.jitter, augment.jitter))
    if steps:  # Pillow runs these twice as fast as uint8 tensors
        steps = [transforms().ToPILImage(), *steps, transforms().PILToTensor()]
    if augment.erase:
        steps.append(transforms().RandomErasing(augment.erase, value=fill))
    return transforms().Compose(steps) if steps else None


def _three_augment() -> Any:
    """3-Augment of DeiT III (arXiv:2204.07118, section 2): one of grey, solarised, blurred."""
    v2 = transforms()
    return v2.RandomChoice(
        [
            v2.Grayscale(num_output_channels=3),
            v2.RandomSolarize(threshold=128, p=1.0),
            v2.GaussianBlur(kernel_size=13, sigma=(0.1, 2.0)),  # 3 sigma to each side
        ]
    )


__all__ = ["Augment", "View", "alter", "cut", "flip", "mix", "prepare", "train_view", "transforms"]
