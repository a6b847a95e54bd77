"""How time and memory grow with resolution, tokens, batch and model size, beside timm's.

    .venv/bin/python benchmarks/cost.py [--quick] [--device cpu] [--precision fp32] [--rounds 7]
        [--kinds forward training] [--sweeps resolution tokens batch model] [--name cost]

Each sweep changes one thing of S/16 at 224 pixels: the side of the picture (128 to 1024), the patch
(so tokens at one size), the images of a batch, or the model (Ti to L). At every point both sides
take the same forward pass or training step in turn, in another order every round; a step is that of
benchmarks/training.py. Memory is the most that the process (on a GPU: its tensors) grew by during a
call, weights and optimizer left out. A power x^p is fitted to the medians by least squares on
logarithms, with the 95 % interval of p (Student's t over the points); of resolution and tokens to
the upper half of the points too, where the quadratic part of attention shows.

--quick: fewer points and rounds, minutes on two cores. Writes benchmarks/results/NAME.json, and
benchmarks/performance.py makes docs/performance.md of it.
"""

import argparse
import ctypes
import gc
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from scipy import stats

from forward import TIMM
from record import write
from steps import Step, our_step, step_of
from vitral import machine
from vitral.catalog import model as catalog_model
from vitral.images import augment
from vitral.model import build
from vitral.specs import ModelSpec, counts

SECONDS = 12.0  # for the rounds of one side of one point; at least LEAST rounds are taken
LEAST = 3
SIDES = {
    "resolution": [128, 192, 256, 384, 512, 768, 1024],
    "tokens": [32, 16, 14, 8],
    "batch": [1, 2, 4, 8, 16, 32],
}
FEWER = {
    "resolution": [128, 224, 384, 512, 768, 1024],
    "tokens": [32, 16, 8],
    "batch": [1, 4, 16],
}
MODELS = ("Ti/16", "S/16", "B/16", "L/16")
LARGEST_LEARNT = {"resolution": 512, "batch": 8}  # of a quick training
FITTED = {"resolution": "tokens", "tokens": "tokens", "batch": "batch", "model": "parameters"}


@dataclass(frozen=True, slots=True)
class Point:
    """One place in a sweep.

    Attributes:
        name: model as the catalogue has it.
        size: side of the picture in pixels.
        patch: side of a patch in pixels.
        batch: images at once.
    """

    name: str
    size: int = 224
    patch: int = 16
    batch: int = 1

    @property
    def spec(self) -> ModelSpec:
        """The network, with timm's GELU."""
        spec = catalog_model(self.name, size=self.size)
        return replace(spec, gelu="erf", patch=(self.patch, self.patch))

    def theirs(self) -> torch.nn.Module:
        """The same of timm."""
        found: torch.nn.Module = import_module("timm").create_model(
            TIMM[self.name], img_size=self.size, patch_size=self.patch
        )
        return found


def points(sweep: str, kind: str, arguments: argparse.Namespace) -> list[Point]:
    """The points of a sweep, small ones first."""
    name, batch = arguments.model, arguments.batch
    if sweep == "model":
        names = MODELS[: MODELS.index(arguments.largest) + 1]
        return [Point(each, size=arguments.size, batch=batch) for each in names]
    sides = arguments.points or (FEWER if arguments.quick else SIDES)[sweep]
    if arguments.quick and kind == "training":
        sides = [side for side in sides if side <= LARGEST_LEARNT.get(sweep, side)]
    match sweep:
        case "resolution":
            return [Point(name, size=side, batch=batch) for side in sides]
        case "tokens":
            return [Point(name, arguments.size, patch=side, batch=batch) for side in sides]
        case _:
            return [Point(name, arguments.size, batch=side) for side in sides]


def forward_of(network: torch.nn.Module, images: torch.Tensor, precision: str) -> Step:
    """Logits, in evaluation mode."""
    network = network.to(images.device).eval()

    def call() -> object:
        with (
            torch.inference_mode(),
            torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"),
        ):
            return network(images)

    return call


def sides_of(point: Point, kind: str, arguments: argparse.Namespace) -> dict[str, Step]:
    """The same work of Vitral and of timm."""
    device, precision, spec = torch.device(arguments.device), arguments.precision, point.spec
    if kind == "training":
        other = step_of(point.theirs(), spec, point.batch, precision=precision, device=device)
        ours = our_step(spec, point.batch, precision=precision, device=device)
        return {"vitral": ours, "timm": other}
    images = torch.randn(point.batch, spec.channels, *spec.size, device=device)
    return {
        "vitral": forward_of(build(spec), images, precision),
        "timm": forward_of(point.theirs(), images, precision),
    }


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def grown(call: Step, device: torch.device) -> int:
    """Bytes that memory grew by at most during a call."""
    gc.collect()
    if device.type == "cpu":
        ctypes.CDLL(None).malloc_trim(0)  # so that the call has to ask the system again
    wait(device)
    machine.forget_peak(device)
    before = torch.cuda.memory_allocated() if device.type == "cuda" else machine.used_memory()
    call()
    wait(device)
    return max(0, machine.peak_memory(device) - before)


def measured(point: Point, kind: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds and bytes of both sides at a point, and Vitral's ratio to timm round by round."""
    device = torch.device(arguments.device)
    calls = sides_of(point, kind, arguments)
    order = list(calls)
    memory: dict[str, list[int]] = {name: [] for name in order}
    seconds: dict[str, list[float]] = {name: [] for name in order}
    for name in order:
        calls[name]()  # makes the optimizer's state
    for number in range(3):
        for name in order if number % 2 else reversed(order):
            memory[name].append(grown(calls[name], device))
    number = 0
    began = time.monotonic()
    late = len(order) * arguments.seconds
    while number < LEAST or (number < arguments.rounds and time.monotonic() - began < late):
        random.Random(number).shuffle(order)
        for name in order:
            wait(device)
            started = time.perf_counter()
            calls[name]()
            wait(device)
            seconds[name].append(time.perf_counter() - started)
        number += 1
    ratios = [a / b for a, b in zip(seconds["vitral"], seconds["timm"], strict=True)]
    low, middle, high = quantiles(ratios, n=4)
    spec = point.spec
    return {
        "model": point.name,
        "size": point.size,
        "patch": point.patch,
        "batch": point.batch,
        "tokens": spec.prefix + math.prod(spec.grid),
        "parameters": counts.parameters(spec),
        "gflops": point.batch * counts.flops(spec) * (3 if kind == "training" else 1) / 1e9,
        "rounds": number,
        "seconds": {name: median(taken) for name, taken in seconds.items()},
        "quartiles": {name: quantiles(taken, n=4)[::2] for name, taken in seconds.items()},
        "memory": {name: min(held) for name, held in memory.items()},
        "ratio": middle,
        "ratio_quartiles": [low, high],
    }


def exponent(x: Sequence[float], y: Sequence[float]) -> dict[str, Any] | None:
    """p of y = c x^p with its 95 % interval; None of fewer than three points."""
    if len(x) < 3 or min(y) <= 0:
        return None
    found = stats.linregress(np.log(x), np.log(y))
    half = stats.t.ppf(0.975, len(x) - 2) * found.stderr
    interval = [found.slope - half, found.slope + half]
    return {"exponent": float(found.slope), "interval": list(map(float, interval)), "n": len(x)}


def fits(rows: list[dict[str, Any]], sweep: str) -> dict[str, Any]:
    """The exponents of time, memory and arithmetic, over all points and over the upper half."""
    of = FITTED[sweep]
    found: dict[str, Any] = {"of": of}
    upper = rows[len(rows) // 2 :]
    parts = {"all": rows} | ({"upper": upper} if of == "tokens" else {})
    for part, chosen in parts.items():
        x = [row[of] for row in chosen]
        exponents = {"flops": exponent(x, [row["gflops"] for row in chosen])}
        for what in ("seconds", "memory"):
            for side in ("vitral", "timm"):
                y = [row[what][side] for row in chosen]
                exponents[f"{what} {side}"] = exponent(x, y)
        found[part] = exponents
    return found


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="S/16", choices=MODELS)
    parser.add_argument("--largest", default="L/16", choices=MODELS, help="of the sweep of models")
    parser.add_argument("--size", type=int, default=224, help="of the other sweeps")
    parser.add_argument("--batch", type=int, default=1, help="of the other sweeps")
    parser.add_argument("--points", type=int, nargs="+", help="of one sweep, instead of its own")
    parser.add_argument("--sweeps", nargs="+", default=list(FITTED), choices=list(FITTED))
    parser.add_argument("--kinds", nargs="+", default=["forward", "training"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a side of a point")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="minutes on two cores")
    parser.add_argument("--name", default="cost", help="of the file under results/")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seconds = min(arguments.seconds, 4.0)
        arguments.rounds = min(arguments.rounds, 5)
    torch.set_num_threads(arguments.threads)
    augment.transforms()  # makes torchvision importable where its wheel is of another torch
    began = time.monotonic()
    found: dict[str, Any] = {"settings": vars(arguments), "kinds": {}}
    for kind in arguments.kinds:
        for sweep in arguments.sweeps:
            rows = []
            for point in points(sweep, kind, arguments):
                rows.append(measured(point, kind, arguments))
                row = rows[-1]
                print(
                    f"{kind} {sweep} {point.name} {point.size} px patch {point.patch} batch "
                    f"{point.batch}: {1000 * row['seconds']['vitral']:.0f} ms, {row['ratio']:.3f} "
                    f"of timm's, {row['memory']['vitral'] / 1e6:.0f} and "
                    f"{row['memory']['timm'] / 1e6:.0f} MB",
                    flush=True,
                )
            kept = {"rows": rows, "fits": fits(rows, sweep)}
            found["kinds"].setdefault(kind, {})[sweep] = kept
            found["minutes"] = round((time.monotonic() - began) / 60, 1)
            path = write(arguments.name, found)  # a command that ends early loses no sweep
    print(path)


if __name__ == "__main__":
    main()
