"""Draw the random rectangles of the inception crop, as torchvision and as TensorFlow do."""

from __future__ import annotations

import math
from dataclasses import replace

from vitral.images.seeds import uniform
from vitral.specs.augment import Augment

Rectangle = tuple[int, int, int, int]  # top, left, height, width in pixels


def rectangle(size: tuple[int, int], augment: Augment, seed: int, aspect: float = 1.0) -> Rectangle:
    """Draws the random part of a picture of size (height, width), by augment.flavour.

    `aspect` is the width / height of a part that is not distorted, on which augment.crop_ratio
    counts: 1 where the view is square and keeps shapes.

    torchvision draws the area uniformly and the ratio in its logarithm, and falls back to the
    middle of the picture. TensorFlow (sample_distorted_bounding_box, in the authors' code) draws
    the ratio and then the *height* uniformly, so small crops come more often: a mean area of 0.34
    instead of 0.42 at 375 x 500. It falls back to the whole picture.

    Not torchvision's own: its tensors of one number cost as much as decoding a small JPEG.
    """
    height, width = size
    if aspect != 1.0:
        augment = _of_aspect(augment, aspect, width / height)
    tensorflow = augment.flavour == "big_vision"
    tries, draw = (100, _tensorflow) if tensorflow else (10, _torchvision)
    for number in range(tries):
        if part := draw(height, width, augment, uniform(seed, f"crop {number}", 4)):
            return part
    if tensorflow:
        return 0, 0, height, width
    narrow, wide = augment.crop_ratio
    h = min(height, max(1, round(width / narrow)))
    w = min(width, max(1, round(height * wide)))
    return (height - h) // 2, (width - w) // 2, h, w


def _of_aspect(augment: Augment, aspect: float, of_picture: float) -> Augment:
    """The setting for parts of this width / height, of which the largest has a share of one.

    A square is cut out of any photograph; a part four times as wide as high may have no more than
    a fifth of one, and with a smallest share above that the same middle would always come.
    """
    largest = min(aspect / of_picture, of_picture / aspect)
    narrow, wide = augment.crop_ratio
    small, large = augment.crop_scale
    return replace(
        augment,
        crop_ratio=(narrow * aspect, wide * aspect),
        crop_scale=(small * largest, large * largest),
    )


def _torchvision(
    height: int, width: int, augment: Augment, numbers: list[float]
) -> Rectangle | None:
    share, shape, down, across = numbers
    small, large = augment.crop_scale
    narrow, wide = augment.crop_ratio
    area = height * width * (small + (large - small) * share)
    ratio = narrow * (wide / narrow) ** shape  # uniform in the logarithm
    w = round(math.sqrt(area * ratio))
    h = round(math.sqrt(area / ratio))
    if not (0 < w <= width and 0 < h <= height):
        return None
    return int((height - h + 1) * down), int((width - w + 1) * across), h, w


def _tensorflow(
    height: int, width: int, augment: Augment, numbers: list[float]
) -> Rectangle | None:
    shape, tall, down, across = numbers
    smallest, largest = (part * height * width for part in augment.crop_scale)
    narrow, wide = augment.crop_ratio
    ratio = narrow + (wide - narrow) * shape
    least = round(math.sqrt(smallest / ratio))
    most = round(math.sqrt(largest / ratio))
    if round(most * ratio) > width:
        most = int((width + 0.5 - 1e-7) / ratio)
    most = min(most, height)
    h = min(least, most)
    h += int((most - h + 1) * tall)
    if h * round(h * ratio) < smallest:  # rounding may miss the limits by one row
        h += 1
    elif h * round(h * ratio) > largest:
        h -= 1
    w = round(h * ratio)
    if not (0 < w <= width and 0 < h <= height and smallest <= h * w <= largest):
        return None
    # The last place is never drawn: TensorFlow's upper bound is exclusive.
    return int((height - h) * down), int((width - w) * across), h, w
