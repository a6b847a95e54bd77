"""Learning is real: `digits` with five seeds, and `shapes` at 64 pixels.

    .venv/bin/python benchmarks/learning.py [--seeds 5] [--digits 98.5] [--shapes 97] [--threads 2]
        [--only digits] [--name learning]

Each run is `vitral train` with its built-in recipe and nothing changed but the seed; the test
images choose nothing (select="last"). The split of digits is the same for every seed. Writes
benchmarks/results/NAME.json: each run's accuracy, interval and seconds, the mean over the seeds
with its standard error. Ends with status 1 when a goal (in per cent) is missed.
"""

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import spread, trained, write


def several(source: str, seeds: range, place: Path) -> dict[str, Any]:
    """The mean over the seeds, with its standard error; one seed has none."""
    rows = [
        {"seed": seed}
        | trained(source, place / f"{source}{seed}", "--seed", seed, changes=['select="last"'])
        for seed in seeds
    ]
    accuracies = [row["accuracy"] for row in rows]
    error = statistics.stdev(accuracies) / len(rows) ** 0.5 if len(rows) > 1 else None
    return {
        "mean": statistics.mean(accuracies),
        "standard_error": error,
        "seconds": spread([row["seconds"] for row in rows]),
        "runs": rows,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="of digits; shapes has one run")
    parser.add_argument("--digits", type=float, default=98.5, help="goal in per cent")
    parser.add_argument("--shapes", type=float, default=97.0, help="goal in per cent")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["digits", "shapes"])
    parser.add_argument("--name", default="learning", help="of the file under results/")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    plan = {"digits": range(arguments.seeds), "shapes": range(1)}
    figures: dict[str, Any] = {"settings": vars(arguments)}
    with tempfile.TemporaryDirectory() as place:
        for source, seeds in plan.items():
            if arguments.only in (None, source):
                goal = getattr(arguments, source) / 100
                row = several(source, seeds, Path(place))
                figures[source] = {"goal": goal, "reached": row["mean"] >= goal, **row}
                print(f"{source}: mean {row['mean']:.2%}, goal {goal:.1%}", flush=True)
    print(write(arguments.name, figures))
    return 0 if all(figures[source]["reached"] for source in plan if source in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
