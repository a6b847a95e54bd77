"""How long an explanation takes: S/16 at 224 px, as the call and as whole processes.

    .venv/bin/python benchmarks/explaining.py [--model S/16] [--rounds 5] [--name explaining]

Weights are random. The call alone: with everything (the default), without the test, and `--fast`;
then `vitral explain` with its figures, start and all. Writes benchmarks/results/NAME.json.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
from PIL import Image

import vitral
from inference import saved
from record import write
from vitral.explanation import ExplainRequest

REQUESTS = {
    "map, test and details": ExplainRequest(),
    "map and test": ExplainRequest(details=False),
    "map alone": ExplainRequest(details=False, steps=0),
    "--fast": ExplainRequest(method="gradient", details=False, steps=0),
}


def row(seconds: list[float]) -> dict[str, Any]:
    """A median and its quartiles."""
    quarters = quantiles(seconds, n=4)
    return {"seconds": round(median(seconds), 3),
            "quartiles": [round(quarters[0], 3), round(quarters[2], 3)]}  # fmt: skip


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="S/16", choices=["S/16", "B/16", "Ti/16"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="explaining")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = saved(Path(temporary) / "run", asked.model)
        photo = Path(temporary) / "photo.jpg"
        noise = np.random.default_rng(3).integers(0, 255, (47, 63, 3), np.uint8)
        Image.fromarray(noise).resize((500, 375)).save(photo)
        figures: dict[str, Any] = {"model": asked.model}
        for engine in ("openvino", "torch"):
            clf = vitral.load(folder, engine=engine, device="cpu", announce=print)
            taken: dict[str, list[float]] = {name: [] for name in REQUESTS}
            for number in range(asked.rounds + 1):
                for name, request in REQUESTS.items():
                    start = time.perf_counter()
                    clf.explain(photo, request)
                    if number:
                        taken[name].append(time.perf_counter() - start)
            figures[engine] = {name: row(seconds) for name, seconds in taken.items()}
            print(engine, figures[engine], flush=True)
        for name, more in (("vitral explain", []), ("vitral explain --fast", ["--fast"])):
            words = ["explain", folder, photo, "--out", Path(temporary) / "out", "--device=cpu"]
            command = [sys.executable, "-m", "vitral", *map(str, words), "--engine=openvino", *more]
            seconds = []
            for number in range(4):
                start = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                if number:
                    seconds.append(time.perf_counter() - start)
            figures[name] = row(seconds)
            print(name, figures[name], flush=True)
    print(write(asked.name, figures))


if __name__ == "__main__":
    main()
