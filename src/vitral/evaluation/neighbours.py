"""The training images that are most like a picture to the network: one reason for an answer.

index = neighbours_of_training(engine, network, card)   # computed once, then kept in the cache
index.nearest(engine.representation(images), 3)

"Like" is the cosine between what the head reads of either picture, so these are the images that the
network, and not a person, finds alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from vitral.data.datasets import list_images, open_as_trained
from vitral.data.loader import eval_batches, eval_workers, with_progress
from vitral.data.near_duplicates import Tick
from vitral.data.sources import Split, located
from vitral.engines.base import Engine
from vitral.errors import DataError, MachineError, ModelError, UsageError
from vitral.evaluation.foreign import unit
from vitral.evaluation.multi_label import joined
from vitral.evaluation.outputs import compute_outputs
from vitral.model import ViT
from vitral.storage import cache, files
from vitral.weights import digest
from vitral.weights.card import Card
from vitral.wording import byte_size

MOST = 100_000  # images that are looked at; more are drawn from, by a fixed seed
_KIND = "neighbours"  # the folder in the cache
_CHUNK = 1 << 24  # numbers in memory at a time
_BATCH = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Similar:
    """A training image that is like a picture.

    Attributes:
        path: where it is, or its name where it is no file.
        label: its class; several with | between, "" for none.
        cosine: between what the head reads of both, -1 to 1.
    """

    path: str
    label: str
    cosine: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"path": self.path, "label": self.label, "cosine": round(self.cosine, 4)}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class NeighbourIndex:
    """The representations of many images, as the head reads them, to find the nearest ones in.

    Attributes:
        vectors: float16 (N, width), of length 1; zeros where the network says nothing.
        paths, labels: N of each, as of `Similar`.
        among: how many images there are of which these N were drawn.
    """

    vectors: NDArray[np.float16]
    paths: tuple[str, ...]
    labels: tuple[str, ...]
    among: int

    def nearest(self, vectors: NDArray[np.float32], count: int) -> list[tuple[Similar, ...]]:
        """Find the images nearest to each of (B, width) vectors, the nearest first.

        Raises UsageError for fewer than one.
        """
        if count < 1:
            raise UsageError(f"Similar images are counted from 1, not {count}.")
        count = min(count, len(self.paths))
        asked = _unit(vectors)
        best = np.full((len(asked), 0), -np.inf, np.float32)
        rows = np.zeros((len(asked), 0), np.int64)
        size = max(1, _CHUNK // max(self.vectors.shape[1], 1))
        for start in range(0, len(self.paths), size):
            part = self.vectors[start : start + size].astype(np.float32)
            best = np.concatenate([best, asked @ part.T], axis=1)
            here = np.arange(start, start + len(part))
            rows = np.concatenate([rows, np.broadcast_to(here, (len(asked), len(here)))], axis=1)
            order = np.argsort(-best, axis=1, kind="stable")[:, :count]
            best = np.take_along_axis(best, order, axis=1)
            rows = np.take_along_axis(rows, order, axis=1)
        return [
            tuple(
                Similar(path=self.paths[i], label=self.labels[i], cosine=float(min(max(c, -1), 1)))
                for c, i in zip(cosines.tolist(), indices.tolist(), strict=True)
            )
            for cosines, indices in zip(best, rows, strict=True)
        ]


def neighbours_of_training(
    engine: Engine,
    network: ViT,
    card: Card,
    *,
    tick: Tick | None = None,
    announce: Callable[[str], None] = print,
) -> NeighbourIndex:
    """Compute or find again what the head reads of the images that a model learnt from.

    It stays in the cache under the network and the fingerprint of the data, so that the images are
    read once; `announce` is told what should be known. `tick` is called with (images seen, in all).

    Raises ModelError where the artifact does not say which images those were, DataError where they
    are not there any more and nothing was kept.
    """
    division = card.division
    source = _source(card)
    if division is None or source is None:
        raise ModelError(
            "This model does not say which images it learnt from; name images to compare with: "
            "--similar-to PHOTOS/."
        )
    key = cache.key_of([_digest(network, card), "training", source, division.fingerprint])
    if (kept := _kept(key)) is not None:
        return kept
    try:
        data = open_as_trained(source, division, max(card.images.size))
    except (DataError, MachineError, UsageError) as error:
        raise DataError(
            f"The images that this model learnt from cannot be opened ({str(error).rstrip('.')}). "
            f"Name where they, or others to compare with, are: --similar-to PHOTOS/."
        ) from None
    if data.fingerprint != division.fingerprint:
        announce(f"{source} changed since the training: these are the training images of now.")
    index = _computed(engine, card, [data.train], data.classes, tick, announce)
    _keep(key, index, announce)
    return index


def neighbours_of(
    engine: Engine,
    network: ViT,
    card: Card,
    source: str,
    *,
    tick: Tick | None = None,
    announce: Callable[[str], None] = print,
) -> NeighbourIndex:
    """Compute or find again what the head reads of any images, labelled or not.

    Raises DataError where there are none.
    """
    listing = list_images([source], max(card.images.size))
    stamps = [_stamp(split, i) for split in listing.splits for i in range(len(split))]
    key = cache.key_of([_digest(network, card), source, *stamps])
    if (kept := _kept(key)) is not None:
        return kept
    index = _computed(engine, card, listing.splits, listing.classes, tick, announce)
    _keep(key, index, announce)
    return index


def missing(found: Iterable[Similar]) -> int:
    """Count the images that were named by a path at which there is none any more."""
    paths = {Path(similar.path) for similar in found}
    return sum(path.is_absolute() and not path.exists() for path in paths)


def _source(card: Card) -> str | None:
    """The images of the training, as they can be found from any folder."""
    recipe: Any = card.made_by.get("recipe")
    try:
        source = recipe["data"]["source"]
    except (KeyError, TypeError):
        return None
    return source if isinstance(source, str) and source else None


def _computed(
    engine: Engine,
    card: Card,
    splits: Sequence[Split],
    classes: Sequence[str],
    tick: Tick | None,
    announce: Callable[[str], None],
) -> NeighbourIndex:
    among = sum(len(split) for split in splits)
    splits = list(_drawn(splits, among))
    if among > MOST:
        announce(f"{MOST:,} of {among:,} images are compared with, drawn by seed 0.")
    vectors: list[np.ndarray] = []
    paths: list[str] = []
    labels: list[str] = []
    unreadable = 0
    for split in splits:
        workers = eval_workers(split, engine.device)
        batches = eval_batches(split, card.images, batch=_BATCH, workers=workers)
        batches = with_progress(batches, tick, len(split))
        outputs = compute_outputs(engine.representation, batches, card.images, engine.device)
        unreadable += len(outputs.failed)
        if len(outputs.indices):
            vectors.append(_unit(outputs.values).astype(np.float16))
            paths += [located(split, int(i)) for i in outputs.indices]
            labels += label_names(split.labels[outputs.indices], classes)
    if not vectors:
        raise DataError(f"None of the {among} images to compare with can be read.")
    if unreadable:
        announce(f"{unreadable:,} images to compare with cannot be read and are left out.")
    return NeighbourIndex(
        vectors=np.concatenate(vectors), paths=tuple(paths), labels=tuple(labels), among=among
    )


def _drawn(splits: Sequence[Split], among: int) -> Iterator[Split]:
    """At most MOST images of all splits together."""
    if among <= MOST:
        yield from splits
        return
    rows = np.sort(np.random.default_rng(0).permutation(among)[:MOST])
    start = 0
    for split in splits:
        here = rows[(rows >= start) & (rows < start + len(split))] - start
        start += len(split)
        if len(here):
            yield split.select(here)


def label_names(labels: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Name the label of each image; several with | between, "" for none."""
    if not classes:
        return [""] * len(labels)
    if labels.ndim == 1:
        return [classes[label] if label >= 0 else "" for label in labels.tolist()]
    return [joined(classes[k] for k in np.flatnonzero(row).tolist()) for row in labels]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    values = np.asarray(vectors, np.float32)
    if not np.isfinite(values).all():
        raise ModelError(
            "The model gives numbers that are not finite: its weights are damaged or it diverged. "
            "Use other weights."
        )
    return np.asarray(unit(values), np.float32)


def _stamp(split: Split, index: int) -> str:
    """What changes where an image does: its place, size and time."""
    place = located(split, index)
    try:
        status = Path(place).stat()
    except (OSError, ValueError):  # no file of its own
        return place
    return f"{place}\0{status.st_size}\0{status.st_mtime_ns}"


def _digest(network: ViT, card: Card) -> str:
    """A name of the network, by all of its weights, and of its preprocessing."""
    of_weights = digest.of_tensors(network.state_dict(), card.model)
    return cache.key_of([of_weights, card.images.to_dict()])


def _path(key: str) -> Path:
    return cache.folder() / _KIND / f"{key}.safetensors"


def _keep(key: str, index: NeighbourIndex, announce: Callable[[str], None]) -> None:
    """Put an index into the cache; one that cannot be written is no error."""
    metadata = {
        "paths": json.dumps(index.paths),
        "labels": json.dumps(index.labels),
        "among": str(index.among),
    }
    tensors = {"vectors": torch.from_numpy(index.vectors)}
    try:
        files.write_file(
            _path(key), lambda temporary: files.write_tensors(temporary, tensors, metadata)
        )
    except MachineError as error:
        announce(f"What was computed of the images is not kept: {error}")
    else:
        size = byte_size(index.vectors.nbytes)
        announce(f"kept in the cache for the next time: {_path(key)}, {size}")


@lru_cache(maxsize=2)
def _read(path: Path, _: int) -> NeighbourIndex | None:
    try:
        with safe_open(path, "numpy") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            index = NeighbourIndex(
                vectors=file.get_tensor("vectors"),
                paths=tuple(json.loads(metadata["paths"])),
                labels=tuple(json.loads(metadata["labels"])),
                among=int(metadata["among"]),
            )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None
    whole = index.vectors.ndim == 2 and len(index.vectors) == len(index.paths) == len(index.labels)
    return index if whole else None


def _kept(key: str) -> NeighbourIndex | None:
    path = _path(key)
    try:
        return _read(path, path.stat().st_mtime_ns)
    except OSError:
        return None
