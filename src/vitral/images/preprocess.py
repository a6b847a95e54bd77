"""Turn a picture into the tensor that a model expects; nothing else does this.

    tensor(data, spec) == normalise(pixels(data, spec), spec)        # float32 (3, height, width)
    array(data, spec)                                                # the same without torch

Training, evaluation, prediction, serving and export all come through here, so that none of them
can see an image differently. The result is the same to the bit on every call.
"""
# ruff: noqa: PLC0415 - an answer to a single picture needs no torch, which takes a second to import

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitral.images.decode import LARGE, Picture
from vitral.images.decode_errors import Source
from vitral.specs import ImageSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def pixels(source: Source, spec: ImageSpec) -> Tensor:
    """Makes the evaluation view of an image: uint8 (3, height, width) of spec.size, in any strides.

    Raises DataError, with the reason in a sentence, if the image cannot be read.
    """
    import torch

    return torch.from_numpy(evaluation_view(source, spec)).permute(2, 0, 1)


def evaluation_view(source: Source, spec: ImageSpec) -> NDArray[np.uint8]:
    """Makes the evaluation view of an image: uint8 (height, width, 3) of spec.size.

    Resized by whom spec.resize names; by Pillow it is equal to the bit to what timm, torchvision
    and transformers give for the same spec. Every pixel of the file is decoded and counts. Only
    above 33 megapixels is the image halved first, in whole steps that leave at least eight times
    what is needed.

    Raises DataError, with the reason in a sentence, if the image cannot be read.
    """
    if _is_ready(source, spec):
        return np.array(source)
    picture = Picture(source, spec)
    goal = _resized(picture.size, spec)
    large = picture.size[0] * picture.size[1] > LARGE
    image = picture.decode(shrink_to=(8 * goal[0], 8 * goal[1]) if large else None)
    return _fit(image, goal, spec)


def normalise(pixels: Tensor, spec: ImageSpec) -> Tensor:
    """Normalises uint8 (..., 3, H, W) to float32 of the same shape: (value / 255 - mean) / std."""
    import torch

    mean, std = (channel_constants(values, pixels.device) for values in (spec.mean, spec.std))
    if pixels.ndim == 4 and pixels.device.type == "cpu":  # an image at a time stays in the cache
        values = torch.empty(pixels.shape, dtype=torch.float32)
        for value, image in zip(values, pixels, strict=True):
            value.copy_(image).div_(255).sub_(mean).div_(std)
        return values
    return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)


def channel_constants(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Gives a number for each channel, float32 (C, 1, 1).

    Filled on the device: a copy from here would wait for all that a GPU was asked before.
    """
    import torch

    if device.type == "cpu":
        return torch.tensor(values).view(-1, 1, 1)
    return torch.stack([torch.full((1, 1), value, device=device) for value in values])


def tensor(source: Source, spec: ImageSpec) -> Tensor:
    """Preprocesses one image as the model sees it: float32 (3, height, width)."""
    import torch

    return torch.from_numpy(array(source, spec))


def array(source: Source, spec: ImageSpec) -> NDArray[np.float32]:
    """Preprocesses one image as `tensor` does, to the bit, without torch."""
    values = evaluation_view(source, spec).transpose(2, 0, 1).astype(np.float32, order="C")
    values /= np.float32(255)
    values -= np.array(spec.mean, np.float32)[:, None, None]
    values /= np.array(spec.std, np.float32)[:, None, None]
    return values


def resize(image: np.ndarray, size: tuple[int, int], interpolation: str) -> Tensor:
    """Resizes uint8 (H, W, C) to uint8 (C, *size), antialiased; for training views.

    Two to three times as fast as Pillow, and seldom more than a grey level away from it.
    """
    import torch

    view = torch.from_numpy(image).permute(2, 0, 1)
    if image.shape[:2] == size:
        return view
    interpolate = torch.nn.functional.interpolate
    return interpolate(view[None], size=size, mode=interpolation, antialias=True)[0]


def resize_floats(image: np.ndarray, size: tuple[int, int], spec: ImageSpec) -> Tensor:
    """Resizes uint8 (H, W, 3) to uint8 (3, *size), computed in float32 and rounded once."""
    import torch

    values = torch.from_numpy(image).permute(2, 0, 1)[None].to(torch.float32)
    resized = torch.nn.functional.interpolate(
        values, size=size, mode=spec.interpolation, antialias=spec.antialias
    )
    return resized[0].round_().clamp_(0, 255).to(torch.uint8)


def _is_ready(source: Source, spec: ImageSpec) -> bool:
    """Whether nothing is to be done: a drawn scene, an image of a built-in set."""
    if not isinstance(source, np.ndarray) or source.dtype != np.uint8:
        return False
    return source.shape == (*spec.size, 3) and spec.crop == 1.0


def _fit(image: Image.Image, goal: tuple[int, int], spec: ImageSpec) -> NDArray[np.uint8]:
    """The image resized to `goal` and its centre cut or padded to uint8 (*spec.size, 3)."""
    height = min(goal[0], spec.size[0])
    width = min(goal[1], spec.size[1])
    top, left = (_start(goal[i] - side, spec.centre) for i, side in enumerate((height, width)))
    window = (left, top, left + width, top + height)
    resampling = Image.Resampling[spec.interpolation.upper()]
    if goal[0] * goal[1] > LARGE:
        # A picture of 1 × 20000 pixels would be blown up to gigabytes, to keep one square.
        across = image.width / goal[1]
        down = image.height / goal[0]
        right = (left + width) * across
        bottom = (top + height) * down
        box = (left * across, top * down, min(right, image.width), min(bottom, image.height))
        part = np.array(image.resize((width, height), resampling, box))
    elif spec.resize == "pillow":
        part = np.array(image.resize(goal[::-1], resampling).crop(window))
    else:
        whole = resize_floats(np.array(image), goal, spec).permute(1, 2, 0).numpy()
        part = whole[top : top + height, left : left + width]
    return part if part.shape[:2] == spec.size else pad(part, spec)


def pad(part: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Puts uint8 (h, w, 3) into the middle of uint8 (*spec.size, 3) of the mean colour."""
    height, width = part.shape[:2]
    canvas = np.empty((*spec.size, 3), np.uint8)
    canvas[:] = mean_colour(spec)
    top = (spec.size[0] - height) // 2
    left = (spec.size[1] - width) // 2
    canvas[top : top + height, left : left + width] = part
    return canvas


def mean_colour(spec: ImageSpec) -> tuple[int, ...]:
    """Gives the colour, 0 to 255 for each channel, that stands where a picture has nothing."""
    return tuple(round(255 * min(max(value, 0.0), 1.0)) for value in spec.mean)


def covered(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    """Gives the (height, width) of a view that a picture of this size covers; the rest is padding.

    That is the whole view unless spec.fit is "pad".
    """
    height, width = _resized(size, spec)
    return min(height, spec.size[0]), min(width, spec.size[1])


def shown_aspect(size: tuple[int, int], spec: ImageSpec) -> float:
    """Gives width / height, in pixels of the file, of what the evaluation view shows of a picture.

    Of a fit that keeps shapes this is the aspect of the view: a part of a picture with another
    aspect would be stretched to it. "squash" stretches every picture by its own amount.
    """
    if spec.fit == "crop":
        return spec.size[1] / spec.size[0]
    resized = _resized(size, spec)
    height, width = (side * min(1.0, spec.size[i] / resized[i]) for i, side in enumerate(size))
    return width / height


def _start(margin: int, centre: str) -> int:
    return margin // 2 if centre == "floor" else round(margin / 2)  # round(58.5) = 58


def _resized(size: tuple[int, int], spec: ImageSpec) -> tuple[int, int]:
    """(height, width) to which an image of this size is resized before cutting or padding."""
    height, width = size
    goal = (int(spec.size[0] / spec.crop), int(spec.size[1] / spec.crop))
    if spec.fit == "squash":
        return goal
    if spec.fit == "crop" and goal[0] == goal[1]:  # floors the longer side, as torchvision does
        short = min(size)
        return goal[0] * height // short, goal[0] * width // short
    # As timm: both sides rounded.
    chosen = min if spec.fit == "crop" else max
    ratio = chosen(height / goal[0], width / goal[1])
    return max(1, round(height / ratio)), max(1, round(width / ratio))
