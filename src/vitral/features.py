"""Frozen features: what the head reads of each image, and how much a probe makes of it.

embedding = embed(classifier, ["photos/"])       # embedding.vectors: (N, width)
result = probe(classifier, "photos/", "knn")     # result.scores[-1].accuracy
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

import numpy as np

from vitral import machine
from vitral.classifier import Classifier
from vitral.data import layouts, problems
from vitral.data.datasets import find_images, open_dataset
from vitral.data.folders import named_like_an_image
from vitral.data.loader import eval_batches, with_progress
from vitral.data.near_duplicates import Tick
from vitral.data.sources import (
    LEFT_OUT,
    Arrays,
    Dataset,
    Division,
    Files,
    Problem,
    SourceOptions,
    Split,
)
from vitral.errors import DataError, ModelError, UsageError
from vitral.evaluation import joined, probes
from vitral.evaluation.outputs import Outputs, compute_outputs
from vitral.evaluation.probes import SEEDS, SHOTS, ProbeKind, ProbeResult, probe_score
from vitral.specs import ImageSpec
from vitral.wording import first_lines

FEW_SHOT_CROP = 224 / 256
MOST_NOTES = 5  # images left out that the notes of a probe name


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Embedding:
    """The representations of images.

    Attributes:
        vectors: float32 (N, width), in the order of the listing.
        paths: N names: relative to labelled data, otherwise as the files were found.
        labels: N class names, several joined by |; None for images without labels.
        failed: images that could not be read and are not among the N.
    """

    vectors: np.ndarray
    paths: tuple[str, ...]
    labels: tuple[str, ...] | None
    failed: tuple[Problem, ...]


def embed(
    classifier: Classifier,
    data: Sequence[str | Path],
    *,
    batch: int = 64,
    tick: Tick | None = None,
) -> Embedding:
    """What the head reads of every image, pre-logits included: y of equation 4, or what is pooled.

    Args:
        classifier: the model, its preprocessing and its device.
        data: images and folders of images; or one source of labelled images, as `open_dataset`
            takes them, of which the held-out images follow the others.
        batch: images at a time.
        tick: called with (images seen, images in all).

    Raises DataError if there is no image or none can be read, ModelError for a model that gives
    numbers that are not finite.
    """
    eyes = _Eyes(classifier, classifier.card.images, batch, tick)
    listing = _listed([str(source) for source in data], max(classifier.card.images.size))
    parts, paths, labels = [], list[str](), list[str]()
    for split in listing.splits:
        seen = eyes.see(split)
        if len(seen.indices):
            parts.append(seen.values)
            paths += [split.key(int(index)) for index in seen.indices]
            labels += _named(split.labels[seen.indices], listing.classes)
    failed = (*listing.failed, *eyes.failed)
    if not parts:
        raise DataError(f"None of the {len(failed)} files could be read as an image.")
    return Embedding(
        vectors=np.concatenate(parts),
        paths=tuple(paths),
        labels=tuple(labels) if listing.classes else None,
        failed=failed,
    )


def probe(
    classifier: Classifier,
    data: str | Path,
    kind: ProbeKind,
    *,
    seeds: int = SEEDS,
    shots: Sequence[int] = SHOTS,
    batch: int = 64,
    tick: Tick | None = None,
) -> ProbeResult:
    """Learn the classes of `data` from its training images by frozen features, and test it.

    The classes need not be the model's. Data without a split of its own is divided as the model's
    training divided its own. For "fewshot" images are seen as the paper's code does: resized to
    256/224 of the model's size whatever their proportions, and their centre cut out.

    Args:
        classifier: the model, its preprocessing and its device.
        data: labelled images, as `open_dataset` takes them, with one label each.
        kind: "fewshot": the paper's closed form; "knn": the vote of the 20 nearest by cosine;
            "linear": logistic regression.
        seeds: draws of the few images; shots: how many per class. Shots for which a class has too
            few images are left out, with a note.
        batch, tick: as of `embed`.

    Raises DataError for data that cannot be used, UsageError for a setting.
    """
    if kind not in get_args(ProbeKind):
        raise UsageError(f"A probe is one of {', '.join(get_args(ProbeKind))}, not '{kind}'.")
    if seeds < 1:
        raise UsageError(f"seeds counts draws, at least 1, not {seeds}.")
    opened = _divided_as_trained(classifier, data)
    if opened.multi_label:
        raise DataError(
            f"The images of {data} have several labels each, and a probe learns one; give it "
            f"images with one label."
        )
    spec = classifier.card.images
    if kind == "fewshot":
        spec = replace(spec, fit="squash", crop=FEW_SHOT_CROP)
    eyes = _Eyes(classifier, spec, batch, tick)
    test = eyes.see(opened.val)
    if len(test.indices) == 0:
        raise DataError(f"None of the {len(opened.val)} test images of {data} can be read.")
    truth = opened.val.labels[test.indices]
    if kind == "fewshot":
        found = _few_shot(eyes, opened, test.values, truth, seeds, shots)
    else:
        found = _whole(eyes, opened, test.values, truth, kind)
    lost = [problem for problem in opened.problems if problem.code in LEFT_OUT] + eyes.failed
    named = (f"left out  {problem.path}: {problem.reason}" for problem in lost)
    notes = first_lines(named, MOST_NOTES, " images left out")
    return replace(found, notes=(*found.notes, *notes))


@dataclass(frozen=True, slots=True)
class _Eyes:
    classifier: Classifier
    images: ImageSpec
    batch: int
    tick: Tick | None
    failed: list[Problem] = field(default_factory=list)

    def see(self, split: Split) -> Outputs:
        """What the head reads of a split; ModelError where that is not finite."""
        engine = self.classifier.engine
        # beside a GPU so many processes keep it busy; on a CPU they would compete with the network
        far = engine.device.type != "cpu" and not isinstance(split.reader, Arrays)
        workers = min(8, machine.cores()) if far else 0
        batches = eval_batches(split, self.images, batch=self.batch, workers=workers)
        batches = with_progress(batches, self.tick, len(split))
        seen = compute_outputs(engine.representation, batches, self.images, engine.device)
        self.failed.extend(seen.failed)
        if not np.isfinite(seen.values).all():
            raise ModelError(
                "The model gives numbers that are not finite: its weights are damaged or it "
                "diverged. Use other weights."
            )
        return seen


def _few_shot(
    eyes: _Eyes,
    data: Dataset,
    test: np.ndarray,
    truth: np.ndarray,
    seeds: int,
    shots: Sequence[int],
) -> ProbeResult:
    """Only the images that are drawn are looked at; if one cannot be read, all draw anew."""
    labels, count = data.train.labels.copy(), len(data.classes)
    places, seen = np.full(len(labels), -1), 0
    parts: list[np.ndarray] = []
    while True:
        possible, notes = probes.possible_shots(labels, data.classes, shots)
        draws = [probes.supports(labels, count, possible, seed) for seed in range(seeds)]
        wanted = np.unique(np.concatenate([draw[possible[-1]] for draw in draws]))
        new = wanted[places[wanted] < 0]
        if len(new) == 0:
            break
        found = eyes.see(data.train.select(new))
        places[new[found.indices]] = seen + np.arange(len(found.indices))
        labels[new[places[new] < 0]] = -1
        seen += len(found.indices)
        parts += [found.values] if len(found.indices) else []
    features, scores = np.concatenate(parts), []
    for number in possible:
        accuracies = []
        for draw in draws:
            rows = draw[number]
            head = probes.least_squares(features[places[rows]], labels[rows], count)
            accuracies.append(float((probes.answers(test, head) == truth).mean()))
        scores.append(probe_score(accuracies, len(truth), number))
    return ProbeResult(
        kind="fewshot",
        classes=count,
        support=len(wanted),
        samples=len(truth),
        scores=tuple(scores),
        notes=notes,
    )


def _whole(
    eyes: _Eyes, data: Dataset, test: np.ndarray, truth: np.ndarray, kind: ProbeKind
) -> ProbeResult:
    """From all training images that can be read."""
    support = eyes.see(data.train)
    labels = data.train.labels[support.indices]
    match kind:
        case "knn":
            guess = probes.nearest(support.values, labels, test)
        case "linear":
            head = probes.logistic(support.values, labels, len(data.classes))
            guess = probes.answers(test, head)
        case _:
            raise UsageError(f"There is no probe '{kind}' of all images.")
    return ProbeResult(
        kind=kind,
        classes=len(data.classes),
        support=len(labels),
        samples=len(truth),
        scores=(probe_score([float((guess == truth).mean())], len(truth)),),
    )


def _divided_as_trained(classifier: Classifier, data: str | Path) -> Dataset:
    """Divides images as the model's training did, so that none that it learnt from is tested on."""
    division = classifier.card.division or Division()
    return open_dataset(
        data,
        seed=division.seed,
        val_fraction=division.val_fraction,
        count=division.count,
        size=max(classifier.card.images.size),
        allow_unreadable=True,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Listing:
    splits: tuple[Split, ...]
    classes: tuple[str, ...]  # none where there are no labels
    failed: tuple[Problem, ...] = ()


def _listed(sources: Sequence[str], size: int) -> _Listing:
    """Labelled images where one source has them; otherwise all the images that can be found."""
    layout = None
    if len(sources) == 1:
        layout = layouts.recognise(sources[0], SourceOptions(size=size))
    if layout is not None and not (layout.is_path and _has_loose_images(Path(sources[0]))):
        places = [place for place in (layout.train, layout.held_out) if place is not None]
        found = [place.scan() for place in places]
        for place, images in zip(places, found, strict=True):
            problems.refuse_rows(images, str(place), allowed=True)
        classes = tuple(sorted({name for images in found for name in images.classes}))
        failed = [problem for images in found for problem in images.problems]
        failed = [problem for problem in failed if problem.code in (*LEFT_OUT, "missing")]
        if classes:
            splits = [images.split("all", classes) for images in found if images.names]
            return _Listing(tuple(splits), classes, tuple(failed))
    files = tuple(map(str, find_images(sources)))
    rows = np.arange(len(files))
    return _Listing((Split("all", np.zeros_like(rows), rows, Files("", files)),), ())


def _has_loose_images(path: Path) -> bool:
    """Whether images lie beside the folders of a folder, which no class then holds."""
    return path.is_dir() and any(named_like_an_image(child.name) for child in path.iterdir())


def _named(labels: np.ndarray, classes: Sequence[str]) -> list[str]:
    if not classes:
        return []
    if labels.ndim == 1:
        return [classes[label] for label in labels.tolist()]
    return [joined(classes[k] for k in np.flatnonzero(row).tolist()) for row in labels]
