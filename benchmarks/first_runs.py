"""What a newcomer does first, as whole processes: the demo, then one epoch on real photographs.

    python benchmarks/first_runs.py [--photos imagenette128/] [--demos 3]

Writes benchmarks/results/first_runs.json: seconds and test accuracy of `vitral demo`; seconds,
images per second and validation accuracy of `vitral train PHOTOS --model Ti/16 --size 128
--epochs 1`. Meant for an otherwise idle machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import spread, write

VITRAL = str(Path(sys.executable).with_name("vitral"))


def timed(*words: object) -> float:
    started = time.perf_counter()
    subprocess.run([VITRAL, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def figures_of(run: Path, seconds: float) -> dict[str, Any]:
    card = json.loads((run / "best" / "model.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rates = [line["images_per_second"] for line in lines if "images_per_second" in line]
    return {
        "seconds": round(seconds, 2),
        "training_seconds": card["made_by"]["seconds"],
        "accuracy": card["metrics"]["accuracy"],
        "interval": card["metrics"]["interval"],
        "samples": card["metrics"]["samples"],
        "images_per_second": statistics.median(rates),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="class folders; left out if not given")
    parser.add_argument("--demos", type=int, default=3)
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        demos = []
        for number in range(arguments.demos):
            run = Path(place) / f"demo{number}"
            demos.append(figures_of(run, timed("demo", "--out", run)))
            print(f"demo {number}: {demos[-1]}", flush=True)
        figures["demo"] = demos
        figures["demo_seconds"] = spread([demo["seconds"] for demo in demos])
        if arguments.photos:
            run, data = Path(place) / "photos", arguments.photos
            words = ("--model", "Ti/16", "--size", 128, "--epochs", 1, "--out", run)
            figures["one_epoch"] = figures_of(run, timed("train", data, *words))
            print(f"one epoch of {data.name}: {figures['one_epoch']}")
            evaluation = timed("evaluate", run, data)
            figures["evaluate_seconds"] = round(evaluation, 2)
    print(write("first_runs", figures))


if __name__ == "__main__":
    main()
