"""Training views and mixed batches, thin over torchvision.transforms.v2; see settings.Augment.

    view = train_view(data, augment, spec, seed)                  # uint8 (3, height, width)
    images, targets = mix(images, labels, classes, augment, seed) # targets (B, classes)

The only file that imports torchvision, and only once an operation of it is asked for.
"""

from __future__ import annotations

import hashlib
import importlib
import math
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitral.images.preprocess import Picture, pixels, resize
from vitral.images.settings import Augment
from vitral.spec import ImageSpec

# torchvision registers shapes for these two at import, which fails where its compiled part was
# built for another torch (the CUDA wheel beside a CPU torch); nothing here ever calls them.
_OPERATORS = ("nms", "qnms")
_libraries: list[torch.library.Library] = []


@cache
def transforms() -> Any:
    """The module torchvision.transforms.v2."""
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
    """Import and build what the views of this setting need, before worker processes start."""
    _operations(augment, spec)


def train_view(source: bytes | np.ndarray, augment: Augment, spec: ImageSpec, seed: int) -> Tensor:
    """One random view of an image, a function of its arguments alone: uint8 (3, height, width).

    Raises DataError, with the reason in a sentence, if the image cannot be read.
    """
    view = cut(source, augment, spec, seed)
    return alter(view[None].contiguous(), augment, spec, [seed])[0]


def cut(source: bytes | np.ndarray, augment: Augment, spec: ImageSpec, seed: int) -> Tensor:
    """The first half of train_view, for one image: crop and flip; uint8 (3, height, width)."""
    if augment.crop == "inception":
        view = _random_crop(source, augment, spec, iter(_dice(seed, "crop", 40)))
    else:
        view = pixels(source, spec)
    flipped = augment.flip and _dice(seed, "flip", 1)[0] < augment.flip
    return view.flip(-1) if flipped else view


def alter(views: Tensor, augment: Augment, spec: ImageSpec, seeds: Sequence[int]) -> Tensor:
    """The second half, for a whole batch (B, 3, H, W) uint8: warp together, then one by one."""
    if augment.warps and len(views):
        views = _warped(views, augment, seeds)
    operations = _operations(augment, spec)
    if operations is not None:
        for index, seed in enumerate(seeds):
            with _seeded(seed):
                views[index] = operations(views[index])
    return views


def mix(
    images: Tensor, labels: Tensor, classes: int, augment: Augment, seed: int
) -> tuple[Tensor, Tensor]:
    """Mixed images (B, 3, H, W) float and their targets (B, classes) float32, rows sum to 1.

    Without mixup and cutmix the images come back as they are, with one-hot targets.
    """
    targets = torch.nn.functional.one_hot(labels, classes).to(torch.float32)
    if not augment.mixes:
        return images, targets
    v2 = transforms()
    kinds = [
        kind(alpha=alpha, num_classes=classes)
        for kind, alpha in ((v2.MixUp, augment.mixup), (v2.CutMix, augment.cutmix))
        if alpha > 0
    ]
    with _seeded(seed):
        chosen = kinds[int(torch.randint(len(kinds), ()))]
        mixed, targets = chosen(images, labels)
    return mixed, targets.to(torch.float32)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let torch's global random numbers start at seed, and give them back afterwards.

    torch.manual_seed would visit every backend: 84 µs instead of 1.
    """
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)


def _dice(seed: int, purpose: str, count: int) -> list[float]:
    """Numbers in [0, 1) that never change with a version of torch or numpy."""
    digest = hashlib.shake_256(f"{purpose}/{seed}".encode()).digest(8 * count)
    return [(value >> 11) / 2**53 for value in struct.unpack(f"<{count}Q", digest)]


def _random_crop(
    source: bytes | np.ndarray, augment: Augment, spec: ImageSpec, dice: Iterator[float]
) -> Tensor:
    """A random rectangle resized to spec.size; JPEG decodes no finer than the crop needs."""
    picture = Picture(source)
    height, width = picture.size
    top, left, h, w = _rectangle(height, width, augment, dice)
    finest = min(h / spec.size[0], w / spec.size[1])
    shrink = (math.ceil(height / finest), math.ceil(width / finest)) if finest > 1 else None
    image = picture.decode(shrink)
    down, across = image.height / height, image.width / width
    y, x = min(round(top * down), image.height - 1), min(round(left * across), image.width - 1)
    bottom, right = max(round((top + h) * down), y + 1), max(round((left + w) * across), x + 1)
    return resize(np.array(image.crop((x, y, right, bottom))), spec.size, spec.interpolation)


def _rectangle(
    height: int, width: int, augment: Augment, dice: Iterator[float]
) -> tuple[int, int, int, int]:
    """(top, left, height, width) as torchvision's RandomResizedCrop samples it.

    Not taken from there: its tensors of one number cost as much as decoding a small JPEG.
    """
    (small, large), (narrow, wide) = augment.crop_scale, augment.crop_ratio
    for _ in range(10):
        area = height * width * (small + (large - small) * next(dice))
        ratio = narrow * (wide / narrow) ** next(dice)  # uniform in the logarithm
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top, left = int((height - h + 1) * next(dice)), int((width - w + 1) * next(dice))
            return top, left, h, w
    h = min(height, max(1, round(width / narrow)))
    w = min(width, max(1, round(height * wide)))
    return (height - h) // 2, (width - w) // 2, h, w


def _warped(views: Tensor, augment: Augment, seeds: Sequence[int]) -> Tensor:
    """A random affine map of each view about its centre; what comes from outside is black."""
    height, width = views.shape[-2:]
    dice = np.array([_dice(seed, "warp", 5) for seed in seeds])
    spread = 2 * dice - 1
    turn, slant = (
        np.radians(spread[:, 0] * augment.rotate),
        np.radians(spread[:, 1] * augment.shear),
    )
    zoom = augment.zoom[0] * (augment.zoom[1] / augment.zoom[0]) ** dice[:, 2]
    across, down = 2 * augment.translate * spread[:, 3], 2 * augment.translate * spread[:, 4]
    # From a place in the result to its place in the view: the inverse of slant, zoom and turn.
    cosine, sine, slope = np.cos(turn) / zoom, np.sin(turn) / zoom, np.tan(slant)
    stretch = height / width  # grid_sample counts each side from -1 to 1
    maps = np.empty((len(seeds), 2, 3), np.float32)
    maps[:, 0, 0], maps[:, 0, 1] = cosine + slope * sine, (slope * cosine - sine) * stretch
    maps[:, 1, 0], maps[:, 1, 1] = sine / stretch, cosine
    maps[:, 0, 2] = -maps[:, 0, 0] * across - maps[:, 0, 1] * down
    maps[:, 1, 2] = -maps[:, 1, 0] * across - maps[:, 1, 1] * down
    functional = torch.nn.functional
    grid = functional.affine_grid(torch.from_numpy(maps), list(views.shape), align_corners=False)
    warped = functional.grid_sample(views.to(torch.float32), grid, align_corners=False)
    return warped.round_().to(torch.uint8)


@cache
def _operations(augment: Augment, spec: ImageSpec) -> Any:
    """The torchvision operations of a setting on a uint8 view, or None if there is none."""
    if not (augment.randaugment or augment.trivial or augment.jitter or augment.erase):
        return None
    v2 = transforms()
    fill = [round(255 * value) for value in spec.mean]
    steps = []
    if augment.randaugment:
        layers, magnitude = augment.randaugment
        steps.append(v2.RandAugment(layers, magnitude, fill=fill))
    if augment.trivial:
        steps.append(v2.TrivialAugmentWide(fill=fill))
    if augment.jitter:
        steps.append(v2.ColorJitter(augment.jitter, augment.jitter, augment.jitter))
    if steps:  # Pillow runs these twice as fast as uint8 tensors
        steps = [v2.ToPILImage(), *steps, v2.PILToTensor()]
    if augment.erase:
        steps.append(v2.RandomErasing(augment.erase, value=fill))
    return v2.Compose(steps)


__all__ = ["Augment", "alter", "cut", "mix", "prepare", "train_view", "transforms"]
