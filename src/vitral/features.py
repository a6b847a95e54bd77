"""Frozen features: what the head reads of each image, and how much a probe makes of it.

embedding = embed(classifier, ["photos/"])       # embedding.vectors: (N, width)
result = probe(classifier, "photos/", "knn")     # result.scores[-1].accuracy
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np

from vitral.classifier import Classifier
from vitral.data.datasets import list_images, open_as_trained
from vitral.data.loader import eval_batches, eval_workers, with_progress
from vitral.data.near_duplicates import Tick
from vitral.data.sources import LEFT_OUT, Dataset, Division, Problem, Split
from vitral.errors import DataError, ModelError, UsageError
from vitral.evaluation import probes
from vitral.evaluation.neighbours import label_names
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
    """Compute what the head reads of every image, pre-logits included: y of equation 4.

    Args:
        classifier: the model, its preprocessing and its device.
        data: images and folders of images; or one source of labelled images, as `open_dataset`
            takes them, of which the held-out images follow the others.
        batch: images at a time.
        tick: called with (images seen, images in all).

    Raises DataError if there is no image or none can be read, ModelError for a model that gives
    numbers that are not finite.
    """
    embedder = Embedder(classifier, classifier.card.images, batch, tick)
    listing = list_images([str(source) for source in data], max(classifier.card.images.size))
    parts: list[np.ndarray] = []
    paths: list[str] = []
    labels: list[str] = []
    for split in listing.splits:
        outputs = embedder.embed(split)
        if len(outputs.indices):
            parts.append(outputs.values)
            paths += [split.key(int(index)) for index in outputs.indices]
            labels += label_names(split.labels[outputs.indices], listing.classes)
    failed = (*listing.failed, *embedder.failed)
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
    embedder = Embedder(classifier, spec, batch, tick)
    test = embedder.embed(opened.val)
    if len(test.indices) == 0:
        raise DataError(f"None of the {len(opened.val)} test images of {data} can be read.")
    truth = opened.val.labels[test.indices]
    if kind == "fewshot":
        result = _few_shot(embedder, opened, test.values, truth, seeds, shots)
    else:
        result = _whole(embedder, opened, test.values, truth, kind)
    lost = [problem for problem in opened.problems if problem.code in LEFT_OUT] + embedder.failed
    named = (f"left out  {problem.path}: {problem.reason}" for problem in lost)
    notes = first_lines(named, MOST_NOTES, " images left out")
    return replace(result, notes=(*result.notes, *notes))


@dataclass(frozen=True, slots=True)
class Embedder:
    """The network of a classifier up to its head, for split after split.

    Attributes:
        classifier: the model and its engine.
        images: how images are prepared, the model's own way or a probe's.
        batch, tick: as of `embed`.
        failed: images of all splits so far that could not be read.
    """

    classifier: Classifier
    images: ImageSpec
    batch: int
    tick: Tick | None
    failed: list[Problem] = field(default_factory=list)

    def embed(self, split: Split) -> Outputs:
        """Compute what the head reads of a split; ModelError where that is not finite."""
        engine = self.classifier.engine
        workers = eval_workers(split, engine.device)
        told = partial(print, file=sys.stderr)
        batches = eval_batches(split, self.images, batch=self.batch, workers=workers, note=told)
        batches = with_progress(batches, self.tick, len(split))
        outputs = compute_outputs(engine.representation, batches, self.images, engine.device)
        self.failed.extend(outputs.failed)
        if not np.isfinite(outputs.values).all():
            raise ModelError(
                "The model gives numbers that are not finite: its weights are damaged or it "
                "diverged. Use other weights."
            )
        return outputs


def _few_shot(
    embedder: Embedder,
    data: Dataset,
    test: np.ndarray,
    truth: np.ndarray,
    seeds: int,
    shots: Sequence[int],
) -> ProbeResult:
    """Embed only the images that are drawn; if one cannot be read, all draw anew."""
    labels = data.train.labels.copy()
    count = len(data.classes)
    rows_of = np.full(len(labels), -1)  # of each image in `features`
    embedded = 0
    parts: list[np.ndarray] = []
    while True:
        possible, notes = probes.possible_shots(labels, data.classes, shots)
        draws = [probes.supports(labels, count, possible, seed) for seed in range(seeds)]
        wanted = np.unique(np.concatenate([draw[possible[-1]] for draw in draws]))
        new = wanted[rows_of[wanted] < 0]
        if len(new) == 0:
            break
        outputs = embedder.embed(data.train.select(new))
        rows_of[new[outputs.indices]] = embedded + np.arange(len(outputs.indices))
        labels[new[rows_of[new] < 0]] = -1
        embedded += len(outputs.indices)
        parts += [outputs.values] if len(outputs.indices) else []
    features = np.concatenate(parts)
    scores = []
    for number in possible:
        accuracies = []
        for draw in draws:
            images = draw[number]
            head = probes.least_squares(features[rows_of[images]], labels[images], count)
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
    embedder: Embedder, data: Dataset, test: np.ndarray, truth: np.ndarray, kind: ProbeKind
) -> ProbeResult:
    """Learn from all training images that can be read."""
    support = embedder.embed(data.train)
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
    """Divide images as the model's training did, so that none that it learnt from is tested on."""
    division = classifier.card.division or Division()
    return open_as_trained(data, replace(division, known=()), max(classifier.card.images.size))
