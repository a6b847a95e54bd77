"""One class more: what is learnt of new classes, and what is forgotten of the old ones.

    .venv/bin/python benchmarks/new_classes.py digits [--new 2] [--epochs 100] [--name new_classes]
    .venv/bin/python benchmarks/new_classes.py PHOTOS/ --base scratch-small --epochs 12 ...

A network learns all classes but the last --new ones. It is then fine-tuned on pictures of all
classes, and on pictures of the new ones alone: from a head of zeros (as if it knew no name), with
the rows that it knows, and with --keep. Each is asked about the same held-out pictures of all
classes, which choose nothing. Writes benchmarks/results/NAME.json.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

import vitral
from record import write
from vitral.classifier import Classifier
from vitral.data.datasets import open_dataset
from vitral.data.loader import eval_batches
from vitral.data.sources import Dataset
from vitral.evaluation import wilson
from vitral.images import preprocess

LAST = ("data.workers=0", "select=last")


def digits(folder: Path) -> Path:
    """scikit-learn's digits as class folders."""
    known = load_digits()
    for number, (image, label) in enumerate(zip(known.images, known.target, strict=True)):
        path = folder / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(path)
    return folder


def some(source: Path, classes: set[str], target: Path) -> Path:
    """A folder with these classes of another, with its split where it has one."""
    for folder in sorted(path for path in source.rglob("*") if path.is_dir()):
        if folder.name in classes:
            shutil.copytree(folder, target / folder.relative_to(source), symlinks=True)
    return target


def nameless(run: Path, target: Path) -> Path:
    """The same weights with names that nobody else has, so that no row is kept."""
    shutil.copytree(run / "best", target)
    card = json.loads((target / "model.json").read_text(encoding="utf-8"))
    card["classes"] = [f"unknown {name}" for name in card["classes"]]
    (target / "model.json").write_text(json.dumps(card), encoding="utf-8")
    return target


def asked(classifier: Classifier, data: Dataset, new: set[str]) -> dict[str, Any]:
    """The share of held-out pictures of old and of new classes that are named rightly."""
    given: list[str] = []
    truth: list[str] = []
    for batch in eval_batches(data.val, classifier.card.images, batch=64, workers=0):
        logits = classifier.logits(preprocess.normalise(batch.images, classifier.card.images))
        given += [classifier.classes[k] for k in logits.argmax(1).tolist()]
        truth += [data.classes[k] for k in batch.labels.tolist()]
    right = np.array(given) == np.array(truth)
    is_new = np.isin(truth, sorted(new))
    row: dict[str, Any] = {}
    for name, which in (("old", ~is_new), ("new", is_new)):
        counted = int(right[which].sum())
        row[name] = counted / int(which.sum())
        row[f"{name}_interval"] = wilson(counted, int(which.sum()))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--new", type=int, default=2)
    parser.add_argument("--base", default="digits")
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--steps", type=int, help="of each fine-tune; by default the recipe's")
    parser.add_argument("--size", type=int)
    parser.add_argument("--name", default="new_classes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        figures = measured(options, Path(place))
    write(options.name, figures)


def measured(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    whole = digits(place / "all") if options.data == "digits" else Path(options.data)
    data = open_dataset(whole)
    new = set(data.classes[-options.new :])
    old_pictures = some(whole, set(data.classes) - new, place / "old")
    new_pictures = some(whole, new, place / "new")
    base = vitral.train(
        old_pictures,
        recipe=options.base,
        epochs=options.epochs,
        size=options.size,
        out=place / "base",
        changes=LAST,
    ).path
    rows = {"the network before": asked(vitral.load(base), data, new)}
    zeros = nameless(base, place / "nameless")
    still = ("optimizer.lr=1e-12", "ema=0", 'length="1 steps"', 'schedule.warmup="0 steps"')
    ways: list[tuple[str, Path, dict[str, Any], tuple[str, ...]]] = [
        ("all pictures, before the first step", whole, {"start": base}, still),
        ("all pictures, a head of zeros", whole, {"start": zeros}, ()),
        ("all pictures, rows kept", whole, {"start": base}, ()),
        ("all pictures, --keep", whole, {"start": base, "keep": True}, ()),
        ("new pictures, before the first step", new_pictures, {"start": base, "keep": True}, still),
        ("new pictures, a head of zeros", new_pictures, {"start": zeros}, ()),
        ("new pictures, --keep", new_pictures, {"start": base, "keep": True}, ()),
    ]
    length: tuple[str, ...] = ()
    if options.steps is not None:
        warmup = f'schedule.warmup="{options.steps // 10} steps"'
        length = (f'length="{options.steps} steps"', warmup)
    for number, (name, pictures, start, changes) in enumerate(ways):
        run = vitral.train(
            pictures, **start, out=place / str(number), changes=(*LAST, *length, *changes)
        )
        rows[name] = asked(vitral.load(run), data, new)
        print(name, rows[name], flush=True)
    return {
        "data": options.data if options.data == "digits" else whole.name,
        "old_classes": len(data.classes) - len(new),
        "new_classes": len(new),
        "held_out": len(data.val),
        "settings": {k: v for k, v in vars(options).items() if k != "data"},
        "rows": rows,
    }


if __name__ == "__main__":
    main()
