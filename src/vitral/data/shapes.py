"""Draw `shapes` from a seed, at any size and in any number, with the object's mask.

    scene = draw(seed=0, index=7, size=64)     # scene.image, scene.label, scene.mask

One object of KINDS stands at a random place, scale, colour and rotation on a textured background,
among distractors: strokes, blobs, crumbs and pieces, all smaller or thinner than any object. A
linear classifier on raw pixels stays near chance, a trained network exceeds 95 %
(tests/unit/test_images_samples.py). A scene depends on (seed, index, size) alone; its label on
(seed, index).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from vitral.errors import UsageError

KINDS = (
    "arrow",
    "crescent",
    "cross",
    "disc",
    "heart",
    "hexagon",
    "ring",
    "square",
    "star",
    "triangle",
)

Point = tuple[float, float]
Colour = tuple[int, int, int]

_EDGE = 2  # drawn this many times larger than asked, then averaged down: smooth edges
_CORNERS = {"triangle": 3, "square": 4, "pentagon": 5, "hexagon": 6}
_SIZES = (8, 2048)


@dataclass(frozen=True, slots=True)
class Scene:
    """One drawn picture.

    Attributes:
        image: uint8 (H, W, 3).
        label: index into KINDS.
        mask: bool (H, W), True on the object.
    """

    image: np.ndarray
    label: int
    mask: np.ndarray


def label_of(seed: int, index: int) -> int:
    """Gives the label of a scene without drawing it."""
    return _hash(seed, index, "label") % len(KINDS)


def draw(seed: int, index: int, size: int | tuple[int, int]) -> Scene:
    """Draws scene number `index` of the endless series `seed` at size (height, width) or side.

    Raises UsageError for a side outside 8 to 2048 pixels.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if not all(_SIZES[0] <= side <= _SIZES[1] for side in (height, width)):
        raise UsageError(f"shapes are drawn at 8 to 2048 pixels a side, not {height} × {width}.")
    label = label_of(seed, index)
    generator = np.random.Generator(np.random.PCG64(_hash(seed, index, "scene")))
    numbers = iter(generator.random(256).tolist())

    base = 30 + 190 * np.array([next(numbers) for _ in range(3)])
    canvas = _background(generator, base, (height, width))
    brush = ImageDraw.Draw(canvas)
    frame = float(_EDGE * width), float(_EDGE * height)
    for _ in range(4 + int(6 * next(numbers))):
        _distract(brush, numbers, frame)

    radius = min(frame) * (0.18 + 0.15 * next(numbers))
    x, y = (radius + (side - 2 * radius) * next(numbers) for side in frame)
    outline = _placed(_outline(KINDS[label]), radius, 2 * math.pi * next(numbers), (x, y))
    brush.polygon(outline, fill=_apart_from(base, numbers))
    stencil = Image.new("L", canvas.size, 0)
    ImageDraw.Draw(stencil).polygon(outline, fill=255)
    if next(numbers) < 0.5:
        _stroke(brush, numbers, frame)  # a thin stroke may cross the object

    grain = generator.standard_normal((height, width, 1), dtype=np.float32)
    picture = grain * np.float32(2 + 8 * next(numbers)) + np.asarray(canvas.reduce(_EDGE))
    image = picture.clip(0, 255, out=picture).astype(np.uint8)
    return Scene(image, label, np.asarray(stencil.reduce(_EDGE)) >= 128)


def _hash(seed: int, index: int, purpose: str) -> int:
    text = f"{purpose}/{seed}/{index}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


@cache
def _outline(kind: str) -> tuple[Point, ...]:
    """The closed outline of a kind within the unit circle."""
    return tuple((x, y) for x, y in _curve(kind).tolist())


def _curve(kind: str) -> np.ndarray:
    """The outline as an array (n, 2)."""
    if kind == "disc":
        return _arc(0, 2, 48)
    if kind == "ring":  # out and back again: one line leads from the outer circle to the inner
        return np.concatenate([_arc(0, 2, 48), 0.55 * _arc(2, 0, 48)])
    if kind in _CORNERS:
        return _arc(0, 2, _CORNERS[kind] + 1)[:-1]
    if kind == "star":
        return _arc(0, 2, 11)[:-1] * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]
    if kind == "cross":
        arm = np.array([(-0.3, 0.95), (0.3, 0.95), (0.3, 0.3)])
        clockwise = np.array([[0, -1], [1, 0]])
        return np.concatenate([arm @ np.linalg.matrix_power(clockwise, i) for i in range(4)])
    if kind == "crescent":  # the inner arc runs back through the same two tips
        outer = _arc(0.25, 1.75, 40)
        inner = 0.8 * _arc(1.62, 0.38, 40)
        return np.concatenate([outer, inner + (outer[0] + outer[-1] - inner[0] - inner[-1]) / 2])
    if kind == "heart":
        t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        x = 16 * np.sin(t) ** 3
        y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        return np.stack([x, y + 2], axis=1) / 17.5
    return np.array(  # arrow
        [
            (0, 1),
            (0.62, 0.25),
            (0.22, 0.25),
            (0.22, -0.95),
            (-0.22, -0.95),
            (-0.22, 0.25),
            (-0.62, 0.25),
        ]
    )


def _arc(start: float, stop: float, count: int) -> np.ndarray:
    """Points of the unit circle from start to stop (in half turns, clockwise from the top)."""
    angle = np.pi * np.linspace(start, stop, count)
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def _placed(outline: Sequence[Point], radius: float, turn: float, centre: Point) -> list[Point]:
    cosine = radius * math.cos(turn)
    sine = radius * math.sin(turn)
    x, y = centre
    return [(x + cosine * u - sine * v, y + sine * u + cosine * v) for u, v in outline]


def _background(
    generator: np.random.Generator, base: np.ndarray, size: tuple[int, int]
) -> Image.Image:
    """A smooth texture around one colour: patches stretched by chance in one direction."""
    rows, columns = generator.integers(2, 12, 2).tolist()
    spread = 15 + 30 * generator.random()
    grid = base + spread * generator.uniform(-1, 1, (rows, columns, 1))
    grid += 12 * generator.uniform(-1, 1, (rows, columns, 3))
    patches = Image.fromarray(grid.clip(0, 255).astype(np.uint8))
    fine = patches.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return fine.resize((_EDGE * size[1], _EDGE * size[0]), Image.Resampling.NEAREST)


def _apart_from(base: np.ndarray, numbers: Iterator[float]) -> Colour:
    """A colour that can be told from the background's."""
    colours = [_colour(numbers) for _ in range(5)]
    distances = [math.dist(colour, base) for colour in colours]
    far = [number for number, distance in enumerate(distances) if distance > 120]
    return colours[far[0] if far else distances.index(max(distances))]


def _colour(numbers: Iterator[float]) -> Colour:
    return int(256 * next(numbers)), int(256 * next(numbers)), int(256 * next(numbers))


def _point(numbers: Iterator[float], frame: Point) -> Point:
    return frame[0] * next(numbers), frame[1] * next(numbers)


def _stroke(brush: ImageDraw.ImageDraw, numbers: Iterator[float], frame: Point) -> None:
    """A line through the picture, thinner than any part of an object."""
    ends = [_point(numbers, frame), _point(numbers, frame)]
    brush.line(ends, fill=_colour(numbers), width=max(1, round(min(frame) / 70)))


def _distract(brush: ImageDraw.ImageDraw, numbers: Iterator[float], frame: Point) -> None:
    """A stroke, a cluster of crumbs, or a ragged chip: nothing as large as an object."""
    choice = next(numbers)
    side = min(frame)
    if choice < 0.35:
        _stroke(brush, numbers, frame)
        return
    centre = _point(numbers, frame)
    colour = _colour(numbers)
    if choice < 0.6:  # crumbs
        for _ in range(4):
            x, y = (middle + 0.12 * side * (next(numbers) - 0.5) for middle in centre)
            radius = side * (0.008 + 0.014 * next(numbers))
            brush.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        return
    corners = []  # a chip with five uneven corners
    for x, y in _outline("pentagon"):
        length = 0.4 + 0.6 * next(numbers)
        corners.append((length * x, length * y))
    radius = side * (0.04 + 0.05 * next(numbers))
    brush.polygon(_placed(corners, radius, 6 * next(numbers), centre), fill=colour)
