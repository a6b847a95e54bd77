"""What each precision costs and gives: accuracy, speed and memory by model, engine and precision.

    .venv/bin/python benchmarks/precision.py RUN [RUN ...] [--rounds 5] [--name precision]

Of each trained run, on the images held out by its training (2,000 at most): accuracy with its 95 %
interval, labels equal to torch's in float32, with and without `--merge auto`; images/s at batches
of 8, interleaved, over torch in float32; the peak memory of a fresh process that answers for one
picture; bytes on disk. 8 bits are calibrated on the training's images, behind the gate of `vitral
export`. Writes benchmarks/results/NAME.json.
"""

import argparse
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

import vitral
from record import write
from vitral.classifier import Classifier
from vitral.data.fitting_sets import open_for_fitting
from vitral.data.loader import ready_images
from vitral.engines import ties
from vitral.engines.measure import interleaved
from vitral.evaluation.intervals import wilson
from vitral.export.export import export

IMAGES = 2000
PEAK = (
    "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True,"
    "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL);"
    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
)


def loaded(run: str, folder: Path) -> dict[str, tuple[Classifier, list[str]]]:
    """Every way to compute a run, and the words that `vitral predict` needs for it."""
    found: dict[str, tuple[Classifier, list[str]]] = {}
    for engine in ("torch", "openvino"):
        for precision in ("fp32", "bf16"):
            clf = vitral.load(run, device="cpu", engine=engine, precision=precision, announce=print)
            words = [run, f"--engine={engine}", f"--precision={precision}"]
            found[f"{engine} {precision}"] = (clf, words)
    merged = vitral.load(run, device="cpu", engine="openvino", merge="auto", announce=print)
    if merged.merge:
        found["openvino, merge auto"] = (merged, [run, "--engine=openvino", "--merge=auto"])
    for precision in ("int8", "int8-weights"):
        out = folder / precision
        export(run, "openvino", out, precision=precision, announce=print)
        found[f"openvino {precision}"] = (vitral.load(out), [str(out)])
    if merged.merge:
        out = folder / "both"
        export(run, "openvino", out, precision="int8", merge="auto", announce=print)
        found["openvino int8, merge auto"] = (vitral.load(out), [str(out)])
    return found


def peak(words: list[str], photo: Path) -> int:
    """Megabytes of a process that answers for one picture, its network compiled before."""
    command = [sys.executable, "-m", "vitral", "predict", words[0], str(photo), *words[1:]]
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-S", "-c", PEAK, *command], check=True, capture_output=True, text=True
        )
    return int(done.stdout) // 1024


def table(run: str, rounds: int) -> dict[str, Any]:
    """Measure one run."""
    with tempfile.TemporaryDirectory() as temporary:
        photo = Path(temporary) / "photo.png"
        noise = np.random.default_rng(3).integers(0, 255, (240, 320, 3), np.uint8)
        Image.fromarray(noise).save(photo)
        ways = loaded(run, Path(temporary))
        card = ways["torch fp32"][0].card
        recipe: Any = card.made_by["recipe"]
        data = open_for_fitting(
            recipe["data"]["source"],
            card.classes,
            division=card.division,
            size=max(card.images.size),
        )
        images, labels = ready_images(data.held_out, card.images, IMAGES)
        batch = images[:8]
        calls = [partial(clf.engine.logits, batch) for clf, _ in ways.values()]
        seconds = interleaved(calls, rounds)
        exact: Any = None
        rows: dict[str, Any] = {}
        for (name, (clf, words)), taken in zip(ways.items(), seconds, strict=True):
            parts = [images[start : start + 8] for start in range(0, len(images), 8)]
            raw = [clf.engine.logits(part) for part in parts]
            answers = np.concatenate(raw).argmax(1)
            told = np.concatenate(
                [
                    ties.decided(clf.engine, part, logits)
                    for part, logits in zip(parts, raw, strict=True)
                ]
            ).argmax(1)
            exact = answers if exact is None else exact
            right = int((told == labels).sum())
            ratios = [a / b for a, b in zip(seconds[0], taken, strict=True)]
            rows[name] = {
                "accuracy": right / len(labels),
                "interval": wilson(right, len(labels)),
                "labels_equal": float((told == exact).mean()),
                "labels_equal_of_raw_logits": float((answers == exact).mean()),
                "images_per_second": round(len(batch) / median(taken), 1),
                "times_torch_fp32": round(median(ratios), 2),
                "megabytes_of_a_process": peak(words, photo),
            }
            print(f"  {name:26} {rows[name]}", flush=True)
        return {"model": card.model.name, "size": list(card.images.size), "images": len(labels),
                "rows": rows}  # fmt: skip


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="precision")
    asked = parser.parse_args()
    print(write(asked.name, {"models": [table(run, asked.rounds) for run in asked.runs]}))


if __name__ == "__main__":
    main()
