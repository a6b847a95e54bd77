"""What benchmarks share: `vitral train` as a process, and where its figures go.

Results are benchmarks/results/NAME.json with date, versions and machine.
"""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).resolve().parent / "results"


def machine() -> dict[str, Any]:
    """What a figure was measured with."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "versions": {
            name: metadata.version(name) for name in ("vitral", "torch", "torchvision", "numpy")
        },
    }


def trained(data: object, out: Path, *words: object, changes: Sequence[str] = ()) -> dict[str, Any]:
    """`vitral train` as a person would call it: its seconds as a process, and what it measured."""
    command = [sys.executable, "-m", "vitral", "train", data, *words, "--out", out]
    for change in changes:
        command += ["--set", change]
    started = time.perf_counter()
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    seconds = round(time.perf_counter() - started, 1)
    metrics = json.loads((out / "best" / "model.json").read_text(encoding="utf-8"))["metrics"]
    row = {"seconds": seconds} | {n: metrics[n] for n in ("accuracy", "interval", "samples")}
    print(f"{out.name}: {row}", flush=True)
    return row


def spread(values: list[float]) -> dict[str, float]:
    """Median with minimum and maximum."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def write(name: str, figures: dict[str, Any]) -> Path:
    """Keep figures under results/, with the machine they were measured on."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**machine(), "figures": figures}, indent=2) + "\n")
    return path
