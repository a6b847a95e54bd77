"""RandAugment as the authors' code (big_vision) and as timm have it, on uint8 (H, W, 3).

They share a list of operations, none of which torchvision has in full, and differ in three things:
how strong an operation is at a magnitude, how its pixels are computed, and when it is applied.

big_vision: AugReg (arXiv:2106.10270) and "Better plain ViT baselines" (arXiv:2205.01580). Every
drawn operation is applied; magnitudes are divided by 10 and allowed beyond it; grey fills what
comes from outside. Its contrast blends with a grey of H * W / 256 rather than with the mean: a slip
of the original that the released weights learnt with.

timm: "rand-mM-mstd0.5-inc1" of DeiT (arXiv:2012.12877, table 9) and of MAE. A drawn operation is
applied half of the time, at a magnitude out of 10 with noise around it; all grow with the
magnitude; interpolation is bilinear or bicubic at random.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

from vitral.images.seeds import uniform

GREY = 128

# Each in the order of the original: a random number counts in it.
_FIRST = ("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize")
_ENHANCE = ("Color", "Contrast", "Brightness", "Sharpness")
_MOVE = ("ShearX", "ShearY", "TranslateX", "TranslateY")
BIG_VISION = (*_FIRST, *_ENHANCE, *_MOVE, "Cutout", "SolarizeAdd")
TIMM = (*_FIRST, "SolarizeAdd", *_ENHANCE, *_MOVE)

_SPREAD = 0.5  # standard deviation of timm's magnitude


def big_vision(image: np.ndarray, layers: int, magnitude: int, seed: int) -> np.ndarray:
    """Applies `layers` operations in turn, each drawn evenly from all 16."""
    numbers = uniform(seed, "randaugment", 4 * layers)
    for start in range(0, len(numbers), 4):
        choice, side, down, across = numbers[start : start + 4]
        name = BIG_VISION[int(len(BIG_VISION) * choice)]
        level = (-magnitude if side < 0.5 else magnitude) / 10
        image = apply_big_vision(name, image, level, centre=(down, across))
    return image


def timm(
    image: np.ndarray, layers: int, magnitude: int, fill: tuple[int, ...], seed: int
) -> np.ndarray:
    """Draws `layers` operations evenly from all 15, and leaves each out half of the time."""
    numbers = uniform(seed, "randaugment", 6 * layers)
    for start in range(0, len(numbers), 6):
        choice, skip, first, second, side, kind = numbers[start : start + 6]
        name = TIMM[int(len(TIMM) * choice)]
        radius = math.sqrt(-2 * math.log(1 - first))  # Box and Muller
        noisy = magnitude + _SPREAD * radius * math.cos(math.tau * second)
        level = min(max(noisy / 10, 0.0), 1.0) * (-1 if side < 0.5 else 1)
        if skip >= 0.5:
            image = apply_timm(name, image, level, fill=fill, cubic=kind < 0.5)
    return image


def apply_big_vision(
    name: str, image: np.ndarray, level: float, *, centre: tuple[float, float] = (0.5, 0.5)
) -> np.ndarray:
    """Applies one operation of BIG_VISION.

    Args:
        name: as in BIG_VISION.
        image: uint8 (H, W, 3).
        level: 1 was meant as the strongest, and 1.5 and 2 were used too; the sign is the direction
            of rotation, shear and translation, and nothing to the others.
        centre: of the cutout, as fractions of height and width in [0, 1).
    """
    strength = abs(level)
    match name:
        case "AutoContrast":
            return _autocontrast(image)
        case "Posterize":  # a shift by 8 does what one by 7 does
            return _pointwise(name, image, max(0, 8 - max(1, int(4 * strength))))
        case "Solarize":
            return _pointwise(name, image, int(256 * strength) % 256)
        case "Equalize" | "Invert" | "SolarizeAdd":
            return _pointwise(name, image, int(110 * strength))
        case "Color" | "Contrast" | "Brightness" | "Sharpness":
            return _blend(_degenerate(name, image), image, 1.8 * strength + 0.1)
        case "Cutout":
            return _cutout(image, int(40 * strength), centre)
        case "Rotate":
            return _moved(image, _rotation(30 * level, image.shape[:2]))
        case _:
            return _moved(image, _matrix(name, 0.3 * level, 100 * level))


def apply_timm(
    name: str,
    image: np.ndarray,
    level: float,
    *,
    fill: tuple[int, ...] = (GREY, GREY, GREY),
    cubic: bool = False,
) -> np.ndarray:
    """Applies one operation of TIMM.

    Args:
        name: as in TIMM.
        image: uint8 (H, W, 3).
        level: strength in [-1, 1]; the sign is a direction where there are two.
        fill: colour of what comes from outside.
        cubic: bicubic rather than bilinear interpolation.
    """
    strength = abs(level)
    picture = Image.fromarray(image)
    kind = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    match name:
        case "AutoContrast":
            picture = ImageOps.autocontrast(picture)
        case "Posterize":  # 0 bits would be no picture
            return _pointwise(name, image, 8 - max(1, 4 - int(4 * strength)))
        case "Solarize":
            return _pointwise(name, image, 256 - int(256 * strength))
        case "Equalize" | "Invert" | "SolarizeAdd":
            return _pointwise(name, image, int(110 * strength))
        case "Color" | "Contrast" | "Brightness" | "Sharpness":
            enhancer = getattr(ImageEnhance, name)(picture)
            picture = enhancer.enhance(max(0.1, 1 + 0.9 * level))
        case "Rotate":
            picture = picture.rotate(30 * level, resample=kind, fillcolor=fill)
        case _:
            side = picture.width if name == "TranslateX" else picture.height
            matrix = _matrix(name, 0.3 * level, 0.45 * level * side)
            affine = Image.Transform.AFFINE
            picture = picture.transform(picture.size, affine, matrix, kind, fillcolor=fill)
    return np.asarray(picture)


def _pointwise(name: str, image: np.ndarray, amount: int) -> np.ndarray:
    """What both do alike to each value: `amount` is bits to drop, a threshold, or what is added."""
    match name:
        case "Equalize":
            return np.asarray(ImageOps.equalize(Image.fromarray(image)))
        case "Invert":
            return 255 - image
        case "Posterize":
            return image >> amount << amount
        case "Solarize":
            return np.where(image < amount, image, 255 - image)
        case _:
            brighter = np.minimum(image.astype(np.int16) + amount, 255)
            return np.where(image < 128, brighter, image).astype(np.uint8)


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


def _matrix(name: str, shear: float, shift: float) -> tuple[float, ...]:
    """(a, b, c, d, e, f): pixel (x, y) of the result comes from (ax + by + c, dx + ey + f)."""
    return {
        "ShearX": (1, shear, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, shear, 1, 0),
        "TranslateX": (1, 0, shift, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, shift),
    }[name]


def _rotation(degrees: float, size: tuple[int, ...]) -> tuple[float, ...]:
    """The matrix of a turn about the middle of a picture (height, width)."""
    height, width = size
    cosine = math.cos(math.radians(degrees))
    sine = math.sin(math.radians(degrees))
    across = ((width - 1) - (cosine * (width - 1) - sine * (height - 1))) / 2
    down = ((height - 1) - (sine * (width - 1) + cosine * (height - 1))) / 2
    return cosine, -sine, across, sine, cosine, down


def _moved(image: np.ndarray, matrix: tuple[float, ...]) -> np.ndarray:
    """The nearest pixel each, grey from outside; Pillow's fixed-point numbers are off by one."""
    height, width = image.shape[:2]
    a, b, c, d, e, f = np.array(matrix, np.float32)
    x = np.arange(width, dtype=np.float32)
    y = np.arange(height, dtype=np.float32)[:, None]
    half = np.float32(0.5)
    across = np.floor(a * x + b * y + c + half).astype(np.int32)
    down = np.floor(d * x + e * y + f + half).astype(np.int32)
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    place = np.where(inside, down * width + across, height * width)
    grey = np.full((1, 3), GREY, np.uint8)
    return np.concatenate([image.reshape(-1, 3), grey]).take(place, axis=0)
