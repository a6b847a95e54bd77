"""What one large GPU learns within a ten-minute command, and how much of its rate training uses.

    .venv/bin/python benchmarks/gpu.py cifar CIFAR10/ [--minutes 9.5] [--goal 96] [--alone]
    .venv/bin/python benchmarks/gpu.py photos imagenette128/ [--minutes 9.5] [--goal 93]
    .venv/bin/python benchmarks/gpu.py speed [--models S/16 B/16 L/16] [--minutes 9] [--size 224]
        [--batch N] [--rounds 7] [--calls 10] [--device cuda] [--plain]

cifar: a plain ViT, patch 4, from scratch. A BiT learns the same images first, for a fifth of the
minutes, and the ViT learns from its answers beside the labels (DeiT, arXiv:2012.12877); --alone
leaves it out. photos: the hybrid of the recipe scratch-small, four times as wide. Both are `vitral
train` and nothing else: two short runs tell how many epochs fit into the minutes that are left, and
the held-out images are counted once, at the end. Status 1 when the goal is missed.

speed: images per second in bfloat16 beside timm, both by torch's compiler (--plain: neither), of
whole training steps (Vitral's by the `step` of its own loop) and of forward passes; blocks of calls
in turn, and a ratio for each round. Each is also a share of the rate of the largest plain matrix
product in the same process, with ModelSpec.flops to a forward pass and three of them to a step.
Calls in Vitral's step that wait for the GPU are looked for by torch's own check; one of them makes
the status 1. What does not fit into the minutes is named and left out.

Writes benchmarks/results/gpu_NAME.json.
"""

import argparse
import gc
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from forward import TIMM, peer
from record import spread, trained, write
from scratch import longest
from steps import Step, our_step, step_of
from vitral import catalog
from vitral.images import augment
from vitral.model import build
from vitral.specs import counts

BEGUN = time.monotonic()
BATCH = {"Ti/16": 1024, "S/16": 512, "B/16": 256, "L/16": 128}
STRONG = (
    'augment.flavour="timm"',
    "augment.crop_scale=[0.5, 1.0]",
    "augment.randaugment=[2, 9]",
    "augment.mixup=0.8",
    "augment.cutmix=1.0",
    "augment.erase=0.25",
    "objective.label_smoothing=0.1",
    "data.batch=512",
    "compile=true",
    'select="last"',
)
STUDENT = (*STRONG, 'model.positions="rope2d"', "noise.drop_path=0.1", "ema=0.9995")
TAUGHT = ('objective.distill="soft"', "objective.distill_share=0.5", "objective.temperature=2.0")
WIDE = ("model.resnet.width=128", "model.width=384", "model.heads=6", "model.mlp_width=1536")


def stage(
    name: str,
    arguments: argparse.Namespace,
    words: Sequence[str],
    changes: Sequence[str],
    end: float,
) -> tuple[Path, dict[str, Any]]:
    """As many epochs as end before `end`, seconds after the beginning of the command."""
    place = Path(arguments.place) / name
    changes, probes = [*changes, 'evaluate_every="10000 epochs"', *arguments.changes], []

    def run(epochs: float, out: Path) -> dict[str, Any]:
        warmup = f'schedule.warmup="{epochs / 10} epochs"'
        return trained(arguments.data, out, *words, "--epochs", epochs, changes=[warmup, *changes])

    for epochs in arguments.probes:
        row = run(epochs, place.with_name(f"{name}-{epochs}"))
        probes.append((epochs, row["seconds"]))
    left = end - (time.monotonic() - BEGUN)
    epochs = round(longest(left, *probes), 1)
    print(f"{name}: {epochs} epochs fit into {left:.0f} seconds", flush=True)
    if epochs < arguments.probes[-1]:
        sys.exit(f"The minutes do not hold more than the two short runs of {name}; allow more.")
    row = run(epochs, place)
    print(f"{name}: {row}", flush=True)
    return place, {"epochs": epochs, **row}


def cifar(arguments: argparse.Namespace) -> dict[str, Any]:
    """A plain ViT with patch 4, and its teacher."""
    end, student, rows = 60 * arguments.minutes, list(STUDENT), {}
    if not arguments.alone:
        words = ["--recipe", "scratch-large", "--model", "BiT-R50x1", "--size", "32"]
        teacher, rows["teacher"] = stage("teacher", arguments, words, STRONG, 0.2 * end)
        student += [f'objective.teacher="{teacher}"', *TAUGHT]
    words = ["--recipe", "scratch-large", "--model", "S/4", "--size", "32"]
    _, rows["vit"] = stage("vit", arguments, words, student, end)
    return rows


def photos(arguments: argparse.Namespace) -> dict[str, Any]:
    """The hybrid of scratch-small, wider."""
    words = ["--recipe", "scratch-small", "--size", "128"]
    changes = [*STRONG, *WIDE, "noise.drop_path=0.1", "ema=0.9995"]
    return {"vit": stage("vit", arguments, words, changes, 60 * arguments.minutes)[1]}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def rounds_of(
    calls: dict[str, Step], rounds: int, repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Calls per second of each, round by round, in another order every round."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for number in range(-1, rounds):
        random.Random(number).shuffle(order)
        for name in order:
            wait(device)
            started = time.perf_counter()
            for _ in range(repeats):
                calls[name]()
            wait(device)
            if number >= 0:
                found[name].append(repeats / (time.perf_counter() - started))
    return found


def matrix_product(device: torch.device) -> float:
    """Operations per second of the best of several sides of a bfloat16 product."""
    best = 0.0
    for side in (4096, 8192, 16384) if device.type == "cuda" else (512, 1024):
        one, other = torch.randn(2, side, side, device=device).to(torch.bfloat16)
        rates = rounds_of({"product": partial(torch.mm, one, other)}, 5, 10, device)
        best = max(best, 2 * side**3 * max(rates["product"]))
    return best


def forward_of(network: torch.nn.Module, images: torch.Tensor) -> Step:
    """Logits, in bfloat16 throughout."""
    network = network.to(images.device, torch.bfloat16).eval()

    def call() -> object:
        with torch.inference_mode():
            return network(images)

    return call


def pair(name: str, kind: str, arguments: argparse.Namespace) -> tuple[dict[str, Step], int]:
    """The same work of Vitral and of timm, and the images in a batch."""
    device, compiles = torch.device(arguments.device), not arguments.plain
    batch = arguments.batch or BATCH[name]
    spec = replace(catalog.model(name, size=arguments.size), gelu="erf")  # as timm computes it
    theirs = peer("timm", name, spec)
    if compiles:
        theirs.compile()
    if kind == "training":
        ours = our_step(spec, batch, precision="bf16", device=device, compiles=compiles)
        other = step_of(theirs, spec, batch, precision="bf16", device=device)
        return {"vitral": ours, "timm": other}, batch
    network = build(spec)
    if compiles:
        network.compile()
    images = torch.randn(batch, spec.channels, *spec.size, device=device).to(torch.bfloat16)
    return {"vitral": forward_of(network, images), "timm": forward_of(theirs, images)}, batch


def waits_of(step: Step, device: torch.device) -> list[str]:
    """What torch's own check says of calls in a step that wait for the GPU; none is right."""
    step()  # compiles, and makes the optimizer's state
    wait(device)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        for _ in range(3):
            step()
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    return [f"{each.filename}:{each.lineno}" for each in said if "synchroniz" in str(each.message)]


def compared(name: str, kind: str, best: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both sides' images per second, their shares of the matrix product, and the ratio."""
    device = torch.device(arguments.device)
    calls, batch = pair(name, kind, arguments)
    began = time.monotonic()
    waits = waits_of(calls["vitral"], device) if kind == "training" else []
    rates = rounds_of(calls, arguments.rounds, arguments.calls, device)
    flops = counts.flops(catalog.model(name, size=arguments.size))
    flops *= 3 if kind == "training" else 1
    images = {side: [batch * rate for rate in found] for side, found in rates.items()}
    shares = {side: median(found) * flops / best for side, found in images.items()}
    ratios = [a / b for a, b in zip(rates["vitral"], rates["timm"], strict=True)]
    low, middle, high = quantiles(ratios, n=4)
    row: dict[str, Any] = {"model": name, "kind": kind, "batch": batch, "waits": waits}
    row |= {"images_per_second": {side: spread(found) for side, found in images.items()}}
    row |= {"share_of_matrix_product": shares, "ratio": middle, "quartiles": [low, high]}
    row["seconds"] = round(time.monotonic() - began, 1)
    print(
        f"{name} {kind}: Vitral {median(images['vitral']):,.0f} images/s "
        f"({100 * shares['vitral']:.1f} % of the matrix product), "
        f"{middle:.3f} [{low:.3f}, {high:.3f}] times timm" + "; it waits" * bool(waits),
        flush=True,
    )
    return row


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Training and forward passes of each model beside timm's, as far as the minutes reach."""
    device = torch.device(arguments.device)
    augment.transforms()  # makes torchvision importable where its wheel is of another torch
    best = matrix_product(device)
    print(f"matrix product {best / 1e12:.3g} TFLOP/s", flush=True)
    found: dict[str, Any] = {"matrix_flops": best, "rows": [], "left_out": []}
    longest_part = 0.0
    for name in arguments.models:
        for kind in ("training", "forward"):
            left = 60 * arguments.minutes - (time.monotonic() - BEGUN)
            if left < 1.5 * longest_part:  # a larger model compiles longer
                print(f"{name} {kind} is left out: {left:.0f} s are left", flush=True)
                found["left_out"].append(f"{name} {kind}")
                continue
            began = time.monotonic()
            found["rows"].append(compared(name, kind, best, arguments))
            longest_part = max(longest_part, time.monotonic() - began)
            write(arguments.name or "gpu_speed", {"rows": found})  # a command that ends loses none
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return found


TASKS = {"cifar": cifar, "photos": photos, "speed": speed}
GOALS = {"cifar": 96.0, "photos": 93.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("data", nargs="?", default="", help="class folders under train/ and val/")
    parser.add_argument("--minutes", type=float, help="of the command: 9.5, or 8.5 of speed")
    parser.add_argument("--goal", type=float, help="per cent")
    parser.add_argument("--alone", action="store_true", help="cifar without a teacher")
    parser.add_argument("--changes", nargs="*", default=[], help="of the recipes, as after --set")
    parser.add_argument("--probes", type=float, nargs=2, default=(1, 4), help="epochs")
    speeds = parser.add_argument_group("speed")
    speeds.add_argument("--models", nargs="+", default=["S/16", "B/16", "L/16"], choices=TIMM)
    speeds.add_argument("--size", type=int, default=224)
    speeds.add_argument("--batch", type=int, help="default: 512, 256 and 128 from S to L")
    speeds.add_argument("--rounds", type=int, default=7)
    speeds.add_argument("--calls", type=int, default=10, help="in a round")
    speeds.add_argument("--device", default="cuda")
    speeds.add_argument("--plain", action="store_true", help="without torch's compiler")
    speeds.add_argument("--name", help="of the file under results/")
    arguments = parser.parse_args()
    if arguments.minutes is None:
        arguments.minutes = 8.5 if arguments.task == "speed" else 9.5
    with tempfile.TemporaryDirectory() as place:
        arguments.place = place
        rows = TASKS[arguments.task](arguments)
    settings = {name: value for name, value in vars(arguments).items() if name != "place"}
    settings["data"] = Path(arguments.data).name
    print(write(arguments.name or f"gpu_{arguments.task}", {"settings": settings, "rows": rows}))
    if any(row["waits"] for row in rows.get("rows", [])):
        return 1
    goal = GOALS.get(arguments.task, 0.0) if arguments.goal is None else arguments.goal
    return int("vit" in rows and 100 * rows["vit"]["accuracy"] < goal)


if __name__ == "__main__":
    sys.exit(main())
