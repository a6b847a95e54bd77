"""The RandAugment of DeiT and MAE fine-tuning: timm's "rand-mM-mstd0.5-inc1" on uint8 (H, W, 3).

DeiT (arXiv:2012.12877, table 9). It differs from torchvision's in that each of 15 drawn operations
is applied half of the time, at a magnitude out of 10 with noise around it, that every operation
grows with the magnitude, and that interpolation is bilinear or bicubic by chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

NAMES = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)
NUMBERS_PER_LAYER = 6  # numbers that one operation takes
_SPREAD = 0.5  # standard deviation of the magnitude
_ENHANCERS = {
    "Color": ImageEnhance.Color,
    "Contrast": ImageEnhance.Contrast,
    "Brightness": ImageEnhance.Brightness,
    "Sharpness": ImageEnhance.Sharpness,
}


def randaugment(
    image: np.ndarray, layers: int, magnitude: int, fill: tuple[int, ...], numbers: Iterator[float]
) -> np.ndarray:
    """`layers` operations in turn, drawn evenly from all 15, each left out half of the time."""
    changed = Image.fromarray(image)
    for _ in range(layers):
        name, skipped = NAMES[int(len(NAMES) * next(numbers))], next(numbers) < 0.5
        radius = math.sqrt(-2 * math.log(1 - next(numbers)))  # Box and Muller
        noisy = magnitude + _SPREAD * radius * math.cos(math.tau * next(numbers))
        level = min(max(noisy / 10, 0.0), 1.0) * (-1 if next(numbers) < 0.5 else 1)
        cubic = next(numbers) < 0.5
        if not skipped:
            changed = apply(name, changed, level, fill=fill, cubic=cubic)
    return np.asarray(changed)


def apply(
    name: str,
    image: Image.Image,
    level: float,
    *,
    fill: tuple[int, ...] = (128, 128, 128),
    cubic: bool = False,
) -> Image.Image:
    """One operation by its name in NAMES on an RGB image.

    Args:
        name: as in NAMES.
        image: RGB.
        level: strength in [-1, 1]; the sign is a direction where there are two.
        fill: colour of what comes from outside.
        cubic: bicubic rather than bilinear interpolation.
    """
    strength = abs(level)
    match name:
        case "AutoContrast":
            return ImageOps.autocontrast(image)
        case "Equalize":
            return ImageOps.equalize(image)
        case "Invert":
            return ImageOps.invert(image)
        case "Posterize":
            return ImageOps.posterize(image, max(1, 4 - int(4 * strength)))  # 0 bits: no picture
        case "Solarize":
            return ImageOps.solarize(image, 256 - int(256 * strength))
        case "SolarizeAdd":
            more = int(110 * strength)
            return image.point([min(255, v + more) if v < 128 else v for v in range(256)] * 3)
        case "Color" | "Contrast" | "Brightness" | "Sharpness":
            return _ENHANCERS[name](image).enhance(max(0.1, 1 + 0.9 * level))
    kind = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    if name == "Rotate":
        return image.rotate(30 * level, resample=kind, fillcolor=fill)
    matrix = {
        "ShearX": (1, 0.3 * level, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, 0.3 * level, 1, 0),
        "TranslateX": (1, 0, 0.45 * level * image.width, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, 0.45 * level * image.height),
    }[name]
    return image.transform(image.size, Image.Transform.AFFINE, matrix, kind, fillcolor=fill)


__all__ = ["NAMES", "NUMBERS_PER_LAYER", "apply", "randaugment"]
