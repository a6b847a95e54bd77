"""How well a network tells pictures of none of its classes, by which sign, and by which layer.

    .venv/bin/python benchmarks/foreign.py RUN DATA NAME=IMAGES ... [--most 1500] [--own 5000]

RUN is a run on DATA; IMAGES are folders, or `digits` and `shapes`; the set `textures` is drawn. For
each sign: the AUROC, and the share of the foreign images that is let pass where 95 % of the run's
held-out images are kept. The signs: the largest probability, the energy of the logits (Liu et al.
2020), of what the head reads the distances of `evaluation/foreign.py` beside the relative
Mahalanobis distance (Ren et al. 2021), the Mahalanobis distance of the mean token that enters each
block, and the `detector` that `vitral fit` makes. `held_out_classes` is what a choice can be made
by without any foreign image: the mean AUROC over groups of classes that are held out in turn.
Writes benchmarks/results/NAME.json.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

import vitral
from record import write
from vitral.classifier import Classifier
from vitral.data.datasets import list_images
from vitral.data.fitting_sets import open_for_fitting
from vitral.data.loader import eval_batches
from vitral.data.sources import Arrays, Split
from vitral.evaluation import foreign
from vitral.evaluation.calibration import confidences, normaliser
from vitral.evaluation.foreign import KEPT, FeatureSpace, Sample
from vitral.evaluation.intervals import wilson
from vitral.evaluation.outputs import compute_outputs

Values = dict[str, np.ndarray]  # by layer, "logits" and "head" among them


def observed(clf: Classifier, split: Split) -> Values:
    """Logits, what the head reads, and the mean token before each block and after the last."""
    depth = clf.model.spec.depth

    def compute(images: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            blocks = clf.model.features(images, range(depth + 1)).per_block
        logits, features = clf.engine.logits_and_detector_features(images)
        first = clf.model.spec.prefix
        means = [x[:, first:].mean(1).numpy() for x in blocks.values()]
        return np.concatenate([logits, features, *means], axis=1)

    batches = eval_batches(split, clf.card.images, batch=64, workers=0)
    outputs = compute_outputs(compute, batches, clf.card.images, clf.engine.device)
    spec = clf.model.spec
    widths = [spec.classes, spec.read_width, 6 * spec.width, *[spec.width] * (depth + 1)]
    names = ["logits", "head", "patches", *(f"block {i}" for i in range(depth + 1))]
    parts = np.split(outputs.values, np.cumsum(widths)[:-1], axis=1)
    values = dict(zip(names, parts, strict=True))
    return values | {"labels": outputs.labels}


def textures(size: int, count: int = 500) -> Split:
    """Gratings, blots and noise of random colours."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    images = []
    for i in range(count):
        angle, frequency, phase = random.uniform(0, np.pi), random.uniform(2, 16), random.uniform()
        wave = np.sin(2 * np.pi * (frequency * (x * np.cos(angle) + y * np.sin(angle)) + phase))
        small = random.uniform(0, 1, (int(random.integers(2, 12)),) * 2)
        blot = np.kron(small, np.ones((size // len(small) + 1,) * 2))[:size, :size]
        noise = random.uniform(0, 1, (size, size))
        pattern = ((wave + 1) / 2, blot, noise)[i % 3][..., None]
        first, second = random.uniform(0, 255, (2, 3))
        images.append((first * pattern + second * (1 - pattern)).astype(np.uint8))
    rows = np.arange(count)
    return Split(
        "all",
        np.zeros_like(rows),
        rows,
        Arrays(np.stack(images), tuple(f"textures/{i}" for i in rows)),
    )


def sets(words: list[str], size: int, most: int) -> Iterator[tuple[str, Split]]:
    """The foreign images by name, at most so many of each."""
    yield "textures", textures(size)
    for word in words:
        name, _, source = word.partition("=")
        for split in list_images([source], size).splits:
            yield name, some(split, most)
            break  # of divided data the training images: none of them was learnt from here


def some(split: Split, most: int) -> Split:
    """At most so many images, drawn from a seed."""
    return split.select(np.sort(np.random.default_rng(0).permutation(len(split))[:most]))


def sample(values: Values) -> Sample:
    """What the detector is fitted to."""
    return Sample(
        features=values["head"],
        logits=values["logits"],
        labels=values["labels"],
        patches=values["patches"],
    )


def relative(learnt: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The squared distance to the nearest class mean, less that to the mean of all."""
    spaces = {space.kind: space for space in foreign._spaces(learnt, labels)}
    return lambda x: spaces["mahalanobis"].distances(x) ** 2 - spaces["gaussian"].distances(x) ** 2


def signs(
    learnt: Values, rows: np.ndarray, classes: np.ndarray, temperature: float
) -> dict[str, Callable[[Values], np.ndarray]]:
    """Every sign, higher for foreign images, of these training images and these classes."""
    labels = learnt["labels"][rows]

    def of_space(space: FeatureSpace, layer: str) -> Callable[[Values], np.ndarray]:
        return lambda values: space.distances(values[layer])

    found: dict[str, Callable[[Values], np.ndarray]] = {
        "largest probability": lambda v: (
            -confidences(v["logits"][:, classes].astype(np.float64), temperature)
        ),
        "energy": lambda v: -normaliser(v["logits"][:, classes].astype(np.float64)),
    }
    for space in foreign._spaces(learnt["head"][rows], labels):
        found[space.kind] = of_space(space, "head")
    ratio = relative(learnt["head"][rows], labels)
    found["relative mahalanobis"] = lambda v: ratio(v["head"])
    for layer in learnt:
        if layer.startswith("block"):
            space = next(iter(foreign._spaces(learnt[layer][rows], labels)))
            found[f"mahalanobis, {layer}"] = of_space(space, layer)
    return found


def held_out_classes(learnt: Values, val: Values, temperature: float) -> dict[str, float]:
    """The mean AUROC of each sign on classes left out."""
    scores: dict[str, list[float]] = {}
    for group in foreign._groups(learnt["labels"]):
        rows = np.flatnonzero(~np.isin(learnt["labels"], group))
        classes = np.setdiff1d(np.arange(learnt["logits"].shape[1]), group)
        strange = np.isin(val["labels"], group)
        for name, sign in signs(learnt, rows, classes, temperature).items():
            scores.setdefault(name, []).append(float(roc_auc_score(strange, sign(val))))
    return {name: round(float(np.mean(each)), 4) for name, each in scores.items()}


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("data")
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--most", type=int, default=1500)
    parser.add_argument("--own", type=int, default=5000)
    parser.add_argument("--name", default="foreign")
    asked = parser.parse_args()
    clf = vitral.load(asked.run)
    size = max(clf.card.images.size)
    division = clf.card.division
    images = open_for_fitting(asked.data, clf.classes, division=division, size=size)
    learnt = observed(clf, some(images.learnt, asked.own))
    val = observed(clf, some(images.held_out, asked.own))
    calibration = clf.card.calibration
    temperature = 1.0 if calibration is None else calibration.temperature
    every = np.arange(len(clf.classes))
    found = signs(learnt, np.arange(len(learnt["labels"])), every, temperature)
    detector = foreign.fit(sample(learnt), sample(val), np.ones(len(val["labels"])))
    assert detector is not None
    found["detector"] = lambda values: detector.distances(sample(values).detector_features)
    own = {name: sign(val) for name, sign in found.items()}
    figures: dict[str, Any] = {
        "model": clf.card.model.name,
        "size": size,
        "classes": list(clf.classes),
        "accuracy": float((val["logits"].argmax(1) == val["labels"]).mean()),
        "learnt": len(learnt["labels"]),
        "held_out": len(val["labels"]),
        "detector": detector.to_dict(),
        "held_out_classes": held_out_classes(learnt, val, temperature),
        "sets": {},
    }
    print("held-out classes", figures["held_out_classes"], flush=True)
    for name, split in sets(asked.sets, size, asked.most):
        values = observed(clf, split)
        rows: dict[str, Any] = {}
        for sign, function in found.items():
            strange = function(values)
            limit = np.sort(own[sign])[int(np.ceil(KEPT * len(own[sign]))) - 1]
            passed = int((strange <= limit).sum())
            truth = np.repeat([0, 1], [len(own[sign]), len(strange)])
            area = roc_auc_score(truth, np.concatenate([own[sign], strange]))
            rows[sign] = {
                "auroc": round(float(area), 4),
                "accepted": round(passed / len(strange), 4),
                "interval": [round(bound, 4) for bound in wilson(passed, len(strange))],
            }
        figures["sets"][name] = {"images": len(values["logits"]), "signs": rows}
        print(f"{name}, {len(values['logits'])} images")
        for sign, row in rows.items():
            print(f"  {sign:28} AUROC {row['auroc']:.4f}  accepted {100 * row['accepted']:5.1f} %")
    print(write(asked.name, figures))


if __name__ == "__main__":
    main()
