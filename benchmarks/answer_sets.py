"""Do answer sets keep what they promise? On the held-out images of a run, divided again and again.

    .venv/bin/python benchmarks/answer_sets.py RUN DATA [--draws 500] [--name answer_sets]

The images of DATA that RUN's training held out are scored once and then divided at random,
`--draws` times: one part makes the rule, the rest is asked. Per method, level and number of
calibration images: the share of images whose class is in its set (mean over the draws, with the
5th and the 95th percentile of single draws), the same of the class that fares worst in the mean,
and the mean size of the sets. Beside ours, what is often done instead: the most probable classes
until their calibrated probabilities (temperature of the same calibration images) reach the level.

The held-out images also chose the weights, alike for both parts, so a draw is of one supply.
Writes benchmarks/results/NAME.json. Ends with status 1 where a promise is not kept in the mean:
below the level by more than four standard errors over the draws.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import vitral
from record import write
from vitral.data.loader import eval_batches
from vitral.engines.torch_engine import TorchEngine
from vitral.evaluation import calibration as calibrating
from vitral.evaluation.answer_sets import METHODS, SetCalibration, SetRule
from vitral.evaluation.outputs import compute_outputs

LEVELS = (0.8, 0.9, 0.95)
SIZES = (50, 500, 0)  # calibration images; 0 is half of all

Members = Callable[[np.ndarray], np.ndarray]


def outputs_of(run: str, data: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Logits (N, K), labels (N,) and class names of the images that the training held out."""
    classifier = vitral.load(run)
    images = classifier.eval_set(data)
    if not images.held_out_by_training:
        sys.exit(f"{data} is not what {run} was trained on, so nothing is known to be held out.")
    assert isinstance(classifier.engine, TorchEngine)
    batches = eval_batches(images.split, classifier.card.images, batch=64, workers=0)
    found = compute_outputs(
        classifier.engine.logits, batches, classifier.card.images, classifier.engine.device
    )
    return found.values.astype(np.float64), found.labels, classifier.classes


def until_reached(logits: np.ndarray, labels: np.ndarray, level: float) -> Members:
    """What is often done: the most probable classes until their probabilities sum to the level."""
    temperature = calibrating.fit_temperature(logits, labels)

    def members(values: np.ndarray) -> np.ndarray:
        total = calibrating.normaliser(values, temperature)[:, None]
        chances = np.exp(values / temperature - total)
        order = np.argsort(-chances, axis=1, kind="stable")
        before = np.take_along_axis(chances, order, axis=1).cumsum(axis=1)
        before = np.concatenate([np.zeros((len(values), 1)), before[:, :-1]], axis=1)
        inside = np.empty(values.shape, bool)
        np.put_along_axis(inside, order, before < level, axis=1)
        return inside

    return members


def measure(
    logits: np.ndarray, labels: np.ndarray, method: str, level: float, size: int, draws: int
) -> dict[str, Any]:
    """One row: many draws of the calibration images."""
    random = np.random.default_rng(0)
    count = logits.shape[1]
    coverage, sizes = np.empty(draws), np.empty(draws)
    hits, asked = np.zeros(count), np.zeros(count)
    own = 0
    for draw in range(draws):
        order = random.permutation(len(labels))
        fitted, new = order[: size or len(labels) // 2], order[size or len(labels) // 2 :]
        if method == "until reached":
            members = until_reached(logits[fitted], labels[fitted], level)
        else:
            found = SetCalibration.of(logits[fitted], labels[fitted], fresh=True)
            rule: SetRule = found.rule(level, method)  # type: ignore[arg-type]
            members = rule.members
            own += int(rule.own.sum())
        inside = members(logits[new])
        hit = inside[np.arange(len(new)), labels[new]]
        coverage[draw] = hit.mean()
        sizes[draw] = inside.sum(axis=1).mean()
        hits += np.bincount(labels[new], hit, count)
        asked += np.bincount(labels[new], minlength=count)
    error = float(coverage.std(ddof=1) / np.sqrt(draws))
    return {
        "method": method,
        "level": level,
        "calibration_images": size or len(labels) // 2,
        "coverage": round(float(coverage.mean()), 4),
        "standard_error": round(error, 5),
        "coverage_5_to_95": [round(float(np.quantile(coverage, q)), 4) for q in (0.05, 0.95)],
        "worst_class": round(float((hits / asked).min()), 4),
        "mean_size": round(float(sizes.mean()), 3),
        "classes_with_own_threshold": round(own / draws, 1),
        "kept": bool(coverage.mean() >= level - 4 * error),
    }


def main() -> int:
    """Measure every row, write them, and tell whether all promises are kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("data")
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--name", default="answer_sets")
    arguments = parser.parse_args()
    logits, labels, classes = outputs_of(arguments.run, arguments.data)
    rows = []
    for size in SIZES:
        for level in LEVELS:
            for method in (*METHODS, "until reached"):
                rows.append(measure(logits, labels, method, level, size, arguments.draws))
                print(rows[-1], flush=True)
    kept = all(row["kept"] for row in rows if row["method"] in METHODS)
    figures = {
        "run": Path(arguments.run).name,
        "classes": len(classes),
        "images": len(labels),
        "accuracy": round(float((logits.argmax(axis=1) == labels).mean()), 4),
        "draws": arguments.draws,
        "rows": rows,
        "kept": kept,
    }
    print(write(arguments.name, figures))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
