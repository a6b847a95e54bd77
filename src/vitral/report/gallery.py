"""Pictures for the page: the surest mistakes, likely label errors, and a few of each confusion."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, Protocol

import numpy as np
import torch
from PIL import Image

from vitral.drawing import pictures
from vitral.errors import DataError
from vitral.evaluation import Prediction, mistakes
from vitral.explanation import explain
from vitral.explanation.request import ExplainRequest
from vitral.images import preprocess
from vitral.images.decode import decode
from vitral.model import ViT
from vitral.report.confusions import MOST_PAIRS
from vitral.report.label_errors import likely_label_errors
from vitral.specs import ImageSpec
from vitral.specs.task import TaskKind

MOST = 12  # mistakes, and likely label errors
_SIDE = 240  # pixels of the longer side of a picture
_SMALL = 96  # and of one in a confusion's panel
_MOST_SMALL = 150
_AT_ONCE = 8  # images that are explained together
CHEAP = ExplainRequest(method="relevance", details=False, steps=0)  # one pass there and one back

Kind = Literal["mistake", "label_error", "confusion"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One picture of the page: PNG or JPEG bytes, truth, answer and its probability.

    Of multi-label answers: the names with commas between, and how sure the worst error was.
    `label_probability` is that of the truth, where it is known; `overlay` is the same picture with
    what the model looked at, if there is one; `key` is the name of the image; `kind` says where
    it stands: among the mistakes, the likely label errors, or the images of a confusion.
    """

    image: bytes
    truth: str
    predicted: str
    score: float
    label_probability: float | None = None
    overlay: bytes | None = None
    key: str = ""
    kind: Kind = "mistake"


class Images(Protocol):
    """The part of a split of a data set that the gallery needs."""

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """The name of a sample, as the evaluation was given it."""
        ...

    def read(self, index: int) -> bytes | np.ndarray:
        """A file's bytes, or a uint8 array (H, W, 3)."""
        ...


def examples(
    split: Images,
    predictions: Sequence[Prediction],
    model: ViT | None = None,
    image_spec: ImageSpec | None = None,
    *,
    kind: TaskKind = "single_label",
) -> list[Example]:
    """The pictures of a page: at most 12 mistakes, 12 likely label errors and 150 small ones.

    With a model and its image_spec the large ones get what spoke for the answer. An image that is
    not in the split or cannot be read is left out.
    """
    wrong, label_errors, small = _chosen(predictions, kind)
    large = list(dict.fromkeys([*wrong, *label_errors]))
    wanted = {predictions[i].key for i in [*large, *small]}
    places = {key: i for i in range(len(split)) if (key := split.key(i)) in wanted}
    keys = [predictions[i].key for i in large]
    pictures = dict(_pictures(split, places, keys, _SIDE, image_spec))
    keys = [predictions[i].key for i in small]
    thumbs = dict(_pictures(split, places, keys, _SMALL, image_spec))
    overlays: dict[str, bytes] = {}
    if model is not None and image_spec is not None:
        overlays = dict(_overlays(split, {key: places[key] for key in pictures}, model, image_spec))

    def shown(indices: Sequence[int], images: Mapping[str, bytes], kind: Kind) -> list[Example]:
        return [
            _example(predictions[i], images[predictions[i].key], kind, overlays)
            for i in indices
            if predictions[i].key in images
        ]

    return [
        *shown(wrong, pictures, "mistake"),
        *shown(label_errors, pictures, "label_error"),
        *shown(small, thumbs, "confusion"),
    ]


def count_wanted(predictions: Sequence[Prediction], *, kind: TaskKind = "single_label") -> int:
    """Count the pictures of a page of which every image is there."""
    return sum(map(len, _chosen(predictions, kind)))


def _chosen(
    predictions: Sequence[Prediction], kind: TaskKind
) -> tuple[list[int], list[int], list[int]]:
    """The mistakes, the likely label errors, and the small pictures: places in `predictions`."""
    single = predictions if kind == "single_label" else ()
    return mistakes(predictions, MOST), likely_label_errors(single)[:MOST], _spread(single)


def _spread(predictions: Sequence[Prediction]) -> list[int]:
    """Images to show of the confusions and the right answers.

    Four of each of the most frequent confusions and two right ones of their classes, then one of
    every other confusion, and so on while there is room. Of wrong answers the surest come first,
    of right ones the least sure.
    """
    pairs: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i in sorted(range(len(predictions)), key=lambda i: -predictions[i].score):
        pairs[predictions[i].label, predictions[i].answer].append(i)
    wrong = sorted((pair for pair in pairs if pair[0] != pair[1]), key=lambda x: -len(pairs[x]))
    often = wrong[:MOST_PAIRS]
    names = dict.fromkeys(name for pair in often for name in pair)
    right = [pairs[name, name][::-1] for name in [*names, *(a for a, b in pairs if a == b)]]
    turns = [
        *zip_longest(*(pairs[pair][:4] for pair in often)),
        *zip_longest(*(indices[:2] for indices in right[: len(names) or None])),
        *zip_longest(*(pairs[pair] for pair in wrong)),
        *zip_longest(*right),
    ]
    chosen = dict.fromkeys(i for turn in turns for i in turn if i is not None)
    return list(chosen)[:_MOST_SMALL]


def _example(
    prediction: Prediction,
    picture: bytes,
    kind: Kind,
    overlays: Mapping[str, bytes],
) -> Example:
    return Example(
        image=picture,
        truth=prediction.label,
        predicted=prediction.answer,
        score=prediction.score,
        label_probability=prediction.label_probability,
        overlay=overlays.get(prediction.key) if kind != "confusion" else None,
        key=prediction.key,
        kind=kind,
    )


def _pictures(
    split: Images,
    places: Mapping[str, int],
    keys: Sequence[str],
    side: int,
    image_spec: ImageSpec | None,
) -> Iterator[tuple[str, bytes]]:
    """Each image that can be read, no larger than `side`."""
    for key in keys:
        if key in places:
            try:
                image = decode(split.read(places[key]), image_spec, shrink_to=(side, side))
            except (OSError, DataError):
                continue
            yield key, encoded(image, side)


def _overlays(
    split: Images, places: Mapping[str, int], model: ViT, image_spec: ImageSpec
) -> Iterator[tuple[str, bytes]]:
    """What the model looked at in each image, a few images at a time."""
    device = next(model.parameters()).device
    names = list(places)
    for start in range(0, len(names), _AT_ONCE):
        keys = names[start : start + _AT_ONCE]
        views = [preprocess.tensor(split.read(places[key]), image_spec) for key in keys]
        explained = explain(model, torch.stack(views).to(device), image_spec, request=CHEAP)
        for key, each in zip(keys, explained, strict=True):
            window = pictures.overlay(pictures.upscale(each.picture, _SIDE), each.heatmap)
            yield key, encoded(Image.fromarray(window), _SIDE)


def encoded(image: Image.Image, side: int) -> bytes:
    """JPEG no larger than `side`, or PNG of what has so few pixels that each should be seen."""
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    if 2 * max(image.size) <= side:  # JPEG and a browser's scaling would smear them
        times = side // max(image.size)
        large = image.resize((times * image.width, times * image.height), Image.Resampling.NEAREST)
        large.save(buffer, format="PNG", optimize=True)
    else:
        image.save(buffer, format="JPEG", quality=85 if side > _SMALL else 78)
    return buffer.getvalue()
