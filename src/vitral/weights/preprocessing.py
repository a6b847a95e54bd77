"""The shared parts of reading the preprocessing of other programs as an ImageSpec.

What an ImageSpec cannot say is a WeightsError that names it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from vitral.errors import SpecError, WeightsError
from vitral.specs import ImageSpec

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean, standard deviation


def differences(spec: ImageSpec, name: str, centre: Literal["round", "floor"]) -> list[str]:
    """Say what a program that cuts by `centre` would compute in another way.

    `name` is the program's. A pixel's shift of the cut, and TensorFlow's resize, are all that the
    known programs differ by; none if the tensor is the same.
    """
    sentences = []
    margins = [goal - side for goal, side in zip(resized(spec), spec.size, strict=True)]
    same = all(round(margin / 2) == margin // 2 for margin in margins)
    depends = spec.fit == "crop" or not same or (spec.fit == "pad" and any(margins))
    if spec.centre != centre and depends:
        sentences.append(
            f'{name} cuts with centre = "{centre}", this model with "{spec.centre}": the cut of '
            f"some shapes lies one pixel aside."
        )
    if spec.resize == "tensorflow":
        sentences.append(
            f"{name} antialiases where it shrinks an image; this model expects it not to."
        )
    return sentences


def resized(spec: ImageSpec) -> tuple[int, int]:
    """Return (height, width) that an image is resized to before it is cut."""
    return int(spec.size[0] / spec.crop), int(spec.size[1] / spec.crop)


def crop_fraction(size: tuple[int, int], goal: tuple[int, int]) -> float:
    """Find the crop of which ImageSpec's floor(size / crop) is exactly the goal."""
    crop = min(size[0] / goal[0], size[1] / goal[1])
    for candidate in (crop, math.nextafter(crop, 0.0)):  # 224 / (224 / 242) may fall below 242
        if tuple(int(side / candidate) for side in size) == goal:
            return candidate
    raise WeightsError(f"An ImageSpec cannot say: resize to {goal}, then cut {size}.")


def per_channel(value: Any) -> tuple[float, ...]:
    """Return one number per channel from one number or several."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not values or not all(type(part) in (int, float) for part in values):
        raise WeightsError(f"mean and std are numbers, not {value!r}.")
    return values * 3 if len(values) == 1 else values


@contextmanager
def refusals_named(name: str) -> Iterator[None]:
    """Say of what an ImageSpec refuses whose preprocessing it was."""
    try:
        yield
    except SpecError as error:
        message = f"The preprocessing of {name} cannot be taken over: {error}"
        raise WeightsError(message) from error
