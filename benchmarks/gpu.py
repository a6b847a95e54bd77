"""What one large GPU learns within a ten-minute command, and how much of its rate training uses.

    .venv/bin/python benchmarks/gpu.py cifar CIFAR10/ [--minutes 9.5] [--goal 96] [--alone]
    .venv/bin/python benchmarks/gpu.py photos imagenette128/ [--minutes 9.5] [--goal 93]
    .venv/bin/python benchmarks/gpu.py speed [--model B/16] [--batch 256]

cifar: a plain ViT, patch 4, from scratch. A BiT learns the same images first, for a fifth of the
minutes, and the ViT learns from its answers beside the labels (DeiT, arXiv:2012.12877); --alone
leaves it out. photos: the hybrid of the recipe scratch-small, four times as wide. Both are `vitral
train` and nothing else: two short runs tell how many epochs fit into the minutes that are left, and
the held-out images are counted once, at the end. Status 1 when the goal is missed.

speed: images per second of whole steps at 224 pixels in bfloat16 (forward, backward, clip, AdamW),
compiled, and their share of the largest rate of a plain matrix product in the same process, with
three forward passes of ModelSpec.flops to a step. Writes benchmarks/results/gpu_NAME.json.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from record import spread, trained, write
from scratch import longest
from vitral import catalog
from vitral.model import build
from vitral.specs import counts
from vitral.training import optimizer
from vitral.training.distributed import wrap
from vitral.training.recipe import Optimizer

BEGUN = time.monotonic()
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


def rates(call: Callable[[], object], rounds: int) -> list[float]:
    """Calls per second, of several rounds of ten after a warm-up."""
    found = []
    for _ in range(rounds + 1):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(10):
            call()
        torch.cuda.synchronize()
        found.append(10 / (time.perf_counter() - started))
    return found[1:]


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Whole training steps of a compiled network, beside the largest matrix product."""
    spec = catalog.model(arguments.model)
    network = build(spec).cuda().train()
    wrap.compile_blocks(network)
    learner = optimizer.build(network, Optimizer())
    images = torch.randn(arguments.batch, 3, *spec.size, device="cuda")
    labels = torch.randint(spec.classes, (arguments.batch,), device="cuda")

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(network(images).float(), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        learner.step()
        learner.zero_grad()

    steps = [arguments.batch * rate for rate in rates(step, arguments.rounds)]
    side = 8192
    one, other = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    best = 2 * side**3 * max(rates(lambda: torch.mm(one, other), arguments.rounds))
    share = median(steps) * 3 * counts.flops(spec) / best
    print(f"{median(steps):,.0f} images/s, {100 * share:.1f} % of {best / 1e12:.0f} TFLOP/s")
    return {"images_per_second": spread(steps), "matrix_flops": best, "share": share}


TASKS = {"cifar": cifar, "photos": photos, "speed": speed}
GOALS = {"cifar": 96.0, "photos": 93.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("data", nargs="?", default="", help="class folders under train/ and val/")
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--goal", type=float, help="per cent")
    parser.add_argument("--alone", action="store_true", help="cifar without a teacher")
    parser.add_argument("--changes", nargs="*", default=[], help="of the recipes, as after --set")
    parser.add_argument("--probes", type=float, nargs=2, default=(1, 4), help="epochs")
    parser.add_argument("--model", default="B/16", help="of speed")
    parser.add_argument("--batch", type=int, default=256, help="of speed")
    parser.add_argument("--rounds", type=int, default=9, help="of speed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        arguments.place = place
        rows = TASKS[arguments.task](arguments)
    settings = {name: value for name, value in vars(arguments).items() if name != "place"}
    settings["data"] = Path(arguments.data).name
    print(write(f"gpu_{arguments.task}", {"settings": settings, "rows": rows}))
    goal = GOALS.get(arguments.task, 0.0) if arguments.goal is None else arguments.goal
    return int("vit" in rows and 100 * rows["vit"]["accuracy"] < goal)


if __name__ == "__main__":
    sys.exit(main())
