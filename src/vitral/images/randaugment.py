"""The RandAugment of the authors' code: 16 operations on uint8 (H, W, 3), as they were trained.

AugReg (arXiv:2106.10270) and "Better plain ViT baselines" (arXiv:2205.01580). It differs from
torchvision's in the operations (cutout and solarize-add, no identity), in that every drawn
operation is applied, in its magnitudes (divided by 10 and allowed beyond it) and in the grey that
fills what comes from outside. Its contrast blends with a grey of H * W / 256 rather than with the
mean: a slip of the original that the released weights learnt with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image, ImageOps

GREY = 128
NAMES = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Cutout",
    "SolarizeAdd",
)
NUMBERS_PER_LAYER = 4  # numbers that one operation takes


def randaugment(
    image: np.ndarray, layers: int, magnitude: int, numbers: Iterator[float]
) -> np.ndarray:
    """`layers` operations in turn, each drawn evenly from all 16 and always applied."""
    for _ in range(layers):
        name, negate = NAMES[int(len(NAMES) * next(numbers))], next(numbers) < 0.5
        image = apply(name, image, magnitude, negate=negate, centre=(next(numbers), next(numbers)))
    return image


def apply(
    name: str,
    image: np.ndarray,
    magnitude: float,
    *,
    negate: bool = False,
    centre: tuple[float, float] = (0.5, 0.5),
) -> np.ndarray:
    """One operation by its name in NAMES: uint8 (H, W, 3) to the same.

    Args:
        name: as in NAMES.
        image: uint8 (H, W, 3).
        magnitude: 0 upwards; 10 was meant as the strongest, and 15 and 20 were used too.
        negate: the other direction, for rotation, shear and translation.
        centre: of the cutout, as fractions of height and width in [0, 1).
    """
    level = magnitude / 10
    signed = -level if negate else level
    match name:
        case "AutoContrast":
            return _autocontrast(image)
        case "Equalize":
            return np.asarray(ImageOps.equalize(Image.fromarray(image)))
        case "Invert":
            return 255 - image
        case "Posterize":
            drop = 8 - max(1, int(4 * level))  # a shift by 8 does what one by 7 does
            return image if drop < 0 else image >> drop << drop
        case "Solarize":
            return np.where(image < int(256 * level) % 256, image, 255 - image)
        case "SolarizeAdd":
            brighter = np.minimum(image.astype(np.int16) + int(110 * level), 255)
            return np.where(image < 128, brighter, image).astype(np.uint8)
        case "Color" | "Contrast" | "Brightness" | "Sharpness":
            return _blend(_degenerate(name, image), image, 1.8 * level + 0.1)
        case "Cutout":
            return _cutout(image, int(40 * level), centre)
        case _:
            return _moved(image, _matrix(name, signed, image.shape[:2]))


def _autocontrast(image: np.ndarray) -> np.ndarray:
    low, high = np.array(Image.fromarray(image).getextrema(), np.float32).T
    scale = np.float32(255) / np.maximum(high - low, 1)
    stretched = np.clip(image * scale - low * scale, 0, 255).astype(np.uint8)
    return np.where(high > low, stretched, image)


def _blend(other: np.ndarray, image: np.ndarray, factor: float) -> np.ndarray:
    """From `other` (factor 0) to the image (factor 1) and beyond, cut off rather than rounded."""
    start = other.astype(np.float32)
    return np.clip(start + np.float32(factor) * (image - start), 0, 255).astype(np.uint8)


def _degenerate(name: str, image: np.ndarray) -> np.ndarray:
    """What enhancing leads away from."""
    match name:
        case "Color":
            weights = np.array([0.2989, 0.587, 0.114], np.float32)
            grey = (image / np.float32(255)) @ weights * np.float32(255.5)
            return grey.astype(np.uint8)[:, :, None]
        case "Contrast":
            height, width = image.shape[:2]
            return np.full((1, 1, 1), min(255, height * width // 256), np.uint8)
        case "Brightness":
            return np.zeros((1, 1, 1), np.uint8)
        case _:
            return _smooth(image)


def _smooth(image: np.ndarray) -> np.ndarray:
    """The mean of 3 x 3 pixels, the middle one counting five times; the border stays as it is.

    The sum goes row by row in fused steps, as the original's: where it should be a whole number,
    the order decides on which side of it the sum falls. torch.conv2d takes three times as long.
    """
    height, width = image.shape[:2]
    values = torch.from_numpy(image.astype(np.float32))
    total = torch.zeros(height - 2, width - 2, 3)
    for row in range(3):
        for column in range(3):
            part = values[row : height - 2 + row, column : width - 2 + column]
            weight = np.float32(5 if row == column == 1 else 1) / np.float32(13)
            total = torch.add(total, part, alpha=float(weight))
    result = image.copy()
    result[1:-1, 1:-1] = total.clamp_(0, 255).numpy().astype(np.uint8)
    return result


def _cutout(image: np.ndarray, half: int, centre: tuple[float, float]) -> np.ndarray:
    """A grey square of side 2 * half, cut off where it leaves the picture."""
    y, x = (int(side * place) for side, place in zip(image.shape, centre, strict=False))
    result = image.copy()
    result[max(0, y - half) : y + half, max(0, x - half) : x + half] = GREY
    return result


def _matrix(name: str, level: float, size: tuple[int, ...]) -> tuple[float, ...]:
    """(a, b, c, d, e, f): pixel (x, y) of the result comes from (ax + by + c, dx + ey + f)."""
    match name:
        case "Rotate":
            height, width = size
            turn = math.radians(30 * level)
            cosine, sine = math.cos(turn), math.sin(turn)
            across = ((width - 1) - (cosine * (width - 1) - sine * (height - 1))) / 2
            down = ((height - 1) - (sine * (width - 1) + cosine * (height - 1))) / 2
            return cosine, -sine, across, sine, cosine, down
        case "ShearX":
            return 1, 0.3 * level, 0, 0, 1, 0
        case "ShearY":
            return 1, 0, 0, 0.3 * level, 1, 0
        case "TranslateX":
            return 1, 0, 100 * level, 0, 1, 0
        case "TranslateY":
            return 1, 0, 0, 0, 1, 100 * level
        case _:
            raise ValueError(f"no operation is called {name!r}")


def _moved(image: np.ndarray, matrix: tuple[float, ...]) -> np.ndarray:
    """The nearest pixel each, grey from outside; Pillow's fixed-point numbers are off by one."""
    height, width = image.shape[:2]
    a, b, c, d, e, f = np.array(matrix, np.float32)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    half = np.float32(0.5)
    across = np.floor(a * x + b * y + c + half).astype(np.int32)
    down = np.floor(d * x + e * y + f + half).astype(np.int32)
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    place = np.where(inside, down * width + across, height * width)
    grey = np.full((1, 3), GREY, np.uint8)
    return np.concatenate([image.reshape(-1, 3), grey]).take(place, axis=0)


__all__ = ["NAMES", "NUMBERS_PER_LAYER", "apply", "randaugment"]
