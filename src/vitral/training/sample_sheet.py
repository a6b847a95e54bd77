"""A sheet of training views, as the network sees them, for the page of the run.

write(Path("run/views.jpg"), data.train, View(recipe.augment, recipe.images), seed=recipe.seed)
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vitral.data.loader import train_batches
from vitral.data.sources import Split
from vitral.drawing.pictures import Picture, mosaic, upscale
from vitral.errors import VitralError
from vitral.images import augment as views
from vitral.images.augment import View
from vitral.storage import files

COUNT = 12
_COLUMNS = 6
_SMALLEST = 96  # pixels of the shorter side of a picture
_LARGEST = 224  # of its longer one
_GAP = 6  # pixels between pictures


def write(out: Path, split: Split, view: View, *, seed: int) -> None:
    """Write 12 training views of a split as one JPEG; the same ones for the same arguments.

    They come through the loader's own code, and are mixed with one another where the setting
    mixes. A run does without the sheet rather than fail for it: when no image can be read or the
    file cannot be written, nothing happens.
    """
    with contextlib.suppress(VitralError, OSError):
        pictures = _views(split, view, seed)
        if pictures:
            image = Image.fromarray(_sheet(pictures))
            files.write_file(out, lambda path: image.save(path, format="JPEG", quality=88))


def _views(split: Split, view: View, seed: int) -> list[Picture]:
    """(H, W, 3) each, of images in the order of the first epoch."""
    few = split.select(split.order(seed)[:COUNT])
    batches = train_batches(few, [view], batch=COUNT, seed=seed, start_step=0, workers=0)
    with contextlib.closing(batches):
        batch = next(batches)
    images = batch.images.float()
    if view.augment.mixes and len(images):
        classes = few.labels.shape[1] if few.labels.ndim > 1 else int(few.labels.max()) + 1
        images, _ = views.mix(images, batch.labels, classes, view.augment, seed)
    return list(images.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy())


def _sheet(pictures: list[Picture]) -> Picture:
    """Lay the pictures out in rows of six, made equally large."""
    scaled = [Image.fromarray(upscale(picture, _SMALLEST)) for picture in pictures]
    times = min(1.0, _LARGEST / max(scaled[0].size))
    size = (max(1, round(times * scaled[0].width)), max(1, round(times * scaled[0].height)))
    tiles = [np.asarray(each.resize(size, Image.Resampling.BICUBIC)) for each in scaled]
    return mosaic(tiles, min(_COLUMNS, len(tiles)), _GAP)
