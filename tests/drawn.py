"""Folders of drawn images, and a way to show that none of their files changed."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vitral.data.shapes import KINDS, draw, label_of

TURNS = {"right": 0, "up": 90, "left": 180, "down": 270}


def arrow(name: str, random: np.random.Generator) -> np.ndarray:
    """An arrow of any colour and size somewhere on a noisy ground, that points this way."""
    side = 40
    image = Image.new("RGB", (side, side), tuple(map(int, random.integers(0, 90, 3))))
    draw = ImageDraw.Draw(image)
    colour = tuple(map(int, random.integers(150, 256, 3)))
    half = random.uniform(9, 13)
    x, y = random.uniform(half + 2, side - half - 2, 2)
    draw.line((x - half, y, x + half, y), fill=colour, width=3)
    draw.polygon([(x + half, y), (x, y - half / 1.5), (x, y + half / 1.5)], fill=colour)
    pixels = np.asarray(image.rotate(TURNS[name])).astype(int)
    noise = random.integers(-9, 10, pixels.shape)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


def draw_folder(folder: Path, kinds: int, each: int, size: int = 32, first: int = 0) -> Path:
    """Class folders with `each` JPEG scenes of the first `kinds` shapes."""
    counts = dict.fromkeys(range(kinds), 0)
    index = first
    while min(counts.values()) < each:
        label = label_of(7, index)
        if label in counts and counts[label] < each:
            path = folder / KINDS[label] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw(7, index, size).image).save(path, quality=92)
            counts[label] += 1
        index += 1
    return folder


def hashes(folder: Path) -> dict[str, str]:
    """Content of every file below a folder, to show that none was changed."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def spoil(path: Path) -> None:
    """Take the pixels out of a JPEG: its header and its end are whole, and it cannot be decoded."""
    data = path.read_bytes()
    path.write_bytes(data.partition(b"\xff\xda")[0].removesuffix(b"\xff\xd9") + b"\xff\xd9")


def draw_noise(root: Path, names: Iterable[str]) -> Path:
    """Small pictures of noise at these paths below a folder, no two alike."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        dice = np.random.default_rng(list(name.encode()))
        Image.fromarray(dice.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(path)
    return root


def write_text(root: Path, files: dict[str, str]) -> Path:
    """Text files at these paths below a folder."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root
