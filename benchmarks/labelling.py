"""What `vitral label` is worth: planted errors found, and accuracy against labels bought.

    .venv/bin/python benchmarks/labelling.py imagenette128/ [--size 64] [--epochs 8]
        [--errors 0.05] [--first 25] [--each 25] [--rounds 10] [--seeds 10] [--name labelling]
    .venv/bin/python benchmarks/labelling.py digits --size 32 --errors 0.1 ...

The first half of the classes trains a network with a share of its labels changed at random:
`--errors 50` is asked for those, beside the rankings of cleanlab on the same probabilities
(self-confidence and normalised margin; cleanlab itself where it is installed, otherwise the same
formulas without its filter). The second half is the pool: a head on the frozen features (`--tune
probe`) is learnt from --first random labels, then --each more are bought in each round, as `--next`
chooses them, by the margin alone, and at random; the head is tested on images that are in no pool.
Writes benchmarks/results/NAME.json and NAME.png.
"""

import argparse
import importlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from PIL import Image

from record import RESULTS, trained, write
from vitral import features, labelling
from vitral.classifier import Classifier
from vitral.data.datasets import open_dataset
from vitral.drawing.palette import PANES
from vitral.evaluation import probes
from vitral.loading import load

FIRST = 50  # pictures that are looked at


def digits(folder: Path) -> Path:
    """The digits as class folders."""
    data = open_dataset("digits")
    for part, split in (("train", data.train), ("val", data.val)):
        for index in range(len(split)):
            path = folder / part / data.classes[split.labels[index]] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(split.read(index))).save(path)
    return folder


def planted(source: Path, classes: list[str], target: Path, share: float) -> set[str]:
    """A copy of these classes with a share of the training images under another; those moved."""
    dice = np.random.default_rng(0)
    moved = set()
    for part in ("train", "val"):
        for name in classes:
            for file in sorted((source / part / name).iterdir()):
                label = name
                if part == "train" and dice.random() < share:
                    label = dice.choice([other for other in classes if other != name])
                    moved.add(f"train/{label}/{name}_{file.name}")
                path = target / part / label / f"{name}_{file.name}"
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, path)
    return moved


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.softmax(torch.from_numpy(logits).double(), dim=1).numpy()


def hits(paths: list[str], moved: set[str]) -> dict[str, Any]:
    found = sum(path in moved for path in paths[:FIRST])
    return {"looked_at": len(paths[:FIRST]), "errors": found, "precision": found / FIRST}


def errors(clf: Classifier, folder: Path, moved: set[str]) -> dict[str, Any]:
    """The precision of the first 50 of each ranking, over the training images."""
    embedding = features.embed(clf, [folder])
    names = sorted(set(embedding.labels or ()))
    labels = np.array([names.index(name) for name in embedding.labels or ()])
    probabilities = labelling.held_out_probabilities(
        unit(embedding.vectors), labels, len(names), seed=0
    )
    given = probabilities[np.arange(len(labels)), labels]
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1
    rankings = {
        "self-confidence (formula)": np.argsort(given, kind="stable"),
        "normalised margin (formula)": np.argsort(given - others.max(axis=1), kind="stable"),
    }
    try:
        find = importlib.import_module("cleanlab.filter").find_label_issues
    except ImportError:
        print("cleanlab is not installed: its published formulas alone")
    else:
        for name in ("self_confidence", "normalized_margin"):
            rankings[f"cleanlab, {name}"] = find(
                labels, probabilities, return_indices_ranked_by=name, n_jobs=1
            )
    result = {
        name: hits([embedding.paths[row] for row in order], moved)
        for name, order in rankings.items()
    }
    ranking = labelling.label_errors(clf, folder, FIRST)
    result["vitral label --errors"] = hits([row.path for row in ranking.rows], moved)
    return result


def bought(
    pool: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    arguments: argparse.Namespace,
    how: str,
    seed: int,
) -> list[float]:
    """The accuracy after each round."""
    vectors, labels = pool
    classes = int(labels.max()) + 1
    dice = np.random.default_rng(seed)
    have = dice.permutation(len(labels))[: arguments.first]
    curve = []
    for turn in range(arguments.rounds + 1):
        weight, bias = probes.logistic(vectors[have], labels[have], classes)
        guess = (test[0] @ weight.T + bias).argmax(axis=1)
        curve.append(float((guess == test[1]).mean()))
        if turn == arguments.rounds:
            break
        left = np.setdiff1d(np.arange(len(labels)), have)
        worth = labelling.unsureness(softmax(vectors[left] @ weight.T + bias))
        match how:
            case "vitral label --next":
                new = labelling.choose(worth, vectors[left], arguments.each, seed)
            case "margin alone":
                new = np.argsort(-worth, kind="stable")[: arguments.each]
            case _:
                new = dice.permutation(len(left))[: arguments.each]
        have = np.concatenate([have, left[new]])
    return curve


def draw(path: Path, labels: list[int], curves: dict[str, np.ndarray], title: str) -> None:
    """The mean of each way over the seeds, with its standard error."""
    plt.switch_backend("Agg")
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for colour, (name, rows) in zip(PANES, curves.items(), strict=False):
        mean = 100 * rows.mean(axis=0)
        error = 100 * rows.std(axis=0, ddof=1) / len(rows) ** 0.5
        axes.plot(labels, mean, color=colour, label=name)
        axes.fill_between(labels, mean - error, mean + error, color=colour, alpha=0.2, lw=0)
    axes.set_xlabel("labels bought")
    axes.set_ylabel("accuracy on test images, %")
    axes.set_title(title)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def compare(arguments: argparse.Namespace, place: Path) -> dict[str, Any]:
    photos = Path(arguments.photos)
    if arguments.photos == "digits":
        photos = digits(place / "digits")
    names = sorted(child.name for child in (photos / "train").iterdir())
    known = names[: len(names) // 2]
    others = names[len(names) // 2 :]
    moved = planted(photos, known, place / "known", arguments.errors)
    run = place / "run"
    network = ["--model", arguments.model] if arguments.model else []
    network += ["--recipe", arguments.recipe] if arguments.recipe else []
    words = ["--size", arguments.size, "--epochs", arguments.epochs, *network]
    row = trained(place / "known", run, *words, changes=arguments.changes)
    clf = load(run)
    planted(photos, others, place / "others", 0.0)
    found = errors(clf, place / "known", moved)
    for name, values in found.items():
        print(f"{name}: {values}", flush=True)
    parts = {}
    for part in ("train", "val"):
        embedding = features.embed(clf, [place / "others" / part])
        labels = np.array([others.index(name) for name in embedding.labels or ()])
        parts[part] = (unit(embedding.vectors), labels)
    curves: dict[str, np.ndarray] = {}
    for how in ("vitral label --next", "margin alone", "random"):
        rows = [
            bought(parts["train"], parts["val"], arguments, how, seed)
            for seed in range(arguments.seeds)
        ]
        curves[how] = np.array(rows)
        print(how, np.round(curves[how].mean(axis=0), 4).tolist(), flush=True)
    counts = [arguments.first + arguments.each * turn for turn in range(arguments.rounds + 1)]
    title = f"{Path(arguments.photos).name}: a head on frozen features, {arguments.seeds} seeds"
    draw(RESULTS / f"{arguments.name}.png", counts, curves, title)
    return {
        "data": Path(arguments.photos).name,
        "size": arguments.size,
        "epochs": arguments.epochs,
        "model": arguments.model,
        "recipe": arguments.recipe,
        "trained": row,
        "planted": {"share": arguments.errors, "errors": len(moved), "first": FIRST},
        "rankings": found,
        "pool": len(parts["train"][1]),
        "test": len(parts["val"][1]),
        "labels": counts,
        "seeds": arguments.seeds,
        "accuracy": {name: rows.tolist() for name, rows in curves.items()},
        "mean": {name: rows.mean(axis=0).round(4).tolist() for name, rows in curves.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", help="class folders with train/ and val/, or digits")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--model")
    parser.add_argument("--recipe")
    parser.add_argument("--errors", type=float, default=0.05)
    parser.add_argument("--first", type=int, default=25)
    parser.add_argument("--each", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--name", default="labelling")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(arguments.name, compare(arguments, Path(folder)))


if __name__ == "__main__":
    main()
