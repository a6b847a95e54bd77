"""A run before it begins: what it needs and how long it takes (`--dry-run`, `--batch auto`).

    found = dry_run(recipe, open_data(recipe), torch.device("cpu"))
    print("\n".join(lines(found)))

Memory comes from arithmetic, as the run holds it; a few real steps on random images, with new
weights, then tell time and memory as they are on this machine.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vitral import machine
from vitral.data.datasets import Dataset
from vitral.data.loader import check_shares, steps_per_epoch
from vitral.engines.torch_engine import uses_bf16
from vitral.planning.benchmark import StepCosts, fastest_micro_batch, measure
from vitral.specs import counts
from vitral.storage import files
from vitral.training import finetuning, memory, schedule
from vitral.training.memory import Memory
from vitral.training.recipe import Recipe
from vitral.training.session import loading_processes
from vitral.wording import byte_size, clock

__all__ = ["DryRun", "check", "dry_run", "fastest_micro_batch", "lines"]


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRun:
    """The numbers of a dry run.

    Attributes:
        parameters, trainable: values of the network, and those of them that learn.
        gflops: of one image's forward pass, in 1e9 operations; a step takes about three times it.
        steps, images: of the optimizer, and seen in them.
        validations, validated: how often, and how many images each time.
        processes, part: how many train together, and the images that each computes at once.
        memory: by arithmetic; free_memory: bytes free on the device now.
        measured: None where the network does not fit.
        step_seconds, seconds: of one step and of the whole run, reading included; None too.
        state_bytes: of one saved state; disk_bytes: of the run folder at its largest.
        free_disk: bytes free where it will be.
        device, precision: where and how it computes.
    """

    parameters: int
    trainable: int
    gflops: float
    steps: int
    images: int
    validations: int
    validated: int
    processes: int
    part: int
    memory: Memory
    free_memory: int
    measured: StepCosts | None
    step_seconds: float | None
    seconds: float | None
    state_bytes: int
    disk_bytes: int
    free_disk: int
    device: str
    precision: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = asdict(self)
        values["memory"]["total"] = self.memory.total
        return values


def check(recipe: Recipe, data: Dataset, processes: int = 1) -> None:
    """UsageError for what would end the run only after its processes have started.

    A warm-up longer than the run, or a step with fewer images than it is cut into parts.
    """
    if recipe.tune != "probe":  # which knows no steps
        count, batch = len(data.train), recipe.data.batch
        epoch = steps_per_epoch(count, batch)
        schedule.check(recipe.schedule, _steps(recipe, epoch), epoch)
        check_shares(min(batch, count), processes, recipe.accumulate)


def dry_run(
    recipe: Recipe,
    data: Dataset,
    device: torch.device,
    processes: int = 1,
    *,
    out: Path = Path(),
    shard: bool = False,
) -> DryRun:
    """Arithmetic for the whole run, and a few steps of it on random images; nothing is written.

    Args:
        recipe, data, device: of the run.
        processes: how many train together; the measurement is of one of them.
        out: the run folder, for the free space there.
        shard: whether each process holds only its piece of the weights.

    Raises UsageError as `check` does.
    """
    check(recipe, data, processes)
    recipe = replace(recipe, model=replace(recipe.model, classes=len(data.classes)))
    count, batch, probe = len(data.train), recipe.data.batch, recipe.tune == "probe"
    epoch = steps_per_epoch(count, batch)
    steps = _steps(recipe, epoch)
    images = count if probe else min(batch, count)  # of one step
    most = max(64, batch) if probe else math.ceil(images / processes / recipe.accumulate)
    part = min(most, math.ceil(images / processes))
    every = max(1, recipe.evaluate_every.in_steps(epoch))
    bf16 = uses_bf16(recipe.precision, device, recipe.model.width)
    pieces = processes if shard else 1
    needed = memory.arithmetic(recipe, part, device, bf16=bf16, pieces=pieces)
    free, measured = machine.free_memory(device), measure(recipe, data, device, part)
    state = pieces * (needed.weights + needed.optimizer + needed.average)
    with torch.device("meta"):
        trainable = finetuning.trainable(memory.network(recipe))
    found = DryRun(
        parameters=counts.parameters(recipe.model),
        trainable=trainable,
        gflops=counts.flops(recipe.model) / 1e9,
        steps=steps,
        images=steps * images,
        validations=math.ceil(steps / every),
        validated=len(data.val),
        processes=processes,
        part=part,
        memory=needed,
        free_memory=free,
        measured=measured,
        step_seconds=None,
        seconds=None,
        state_bytes=state,
        # a third slot while it is written
        disk_bytes=3 * state + 8 * counts.parameters(recipe.model),
        free_disk=shutil.disk_usage(files.nearest_parent(out)).free,
        device=str(device),
        precision="bf16" if bf16 else "fp32",
    )
    return found if measured is None else _timed(found, measured, recipe, device)


def lines(found: DryRun) -> list[str]:
    """For the terminal."""
    parts = [
        f"{name} {byte_size(value)}" for name, value in asdict(found.memory).items() if value > 5e5
    ]
    named = f" ({', '.join(parts)})" if parts else ""
    shown = [
        f"model     {found.parameters / 1e6:.2f} M parameters, {found.trainable / 1e6:.2f} M of "
        f"them learn; {found.gflops:.3g} GFLOPs per image",
        f"length    {found.steps:,} steps, {found.images:,} images seen; {found.validations:,} "
        f"validation{'s' * (found.validations != 1)} of {found.validated:,} images",
        f"memory    up to {byte_size(found.memory.total)} with {found.part:,} images at once"
        f"{named}; {byte_size(found.free_memory)} free",
    ]
    if found.memory.total > found.free_memory:
        shown.append(
            "          That may not fit: try --set accumulate=4, --set checkpointing=true, or a "
            "smaller model."
        )
    shown += _times(found)
    shown.append(
        f"disk      {byte_size(found.disk_bytes)}, of which {byte_size(found.state_bytes)} per "
        f"saved state; {byte_size(found.free_disk)} free"
    )
    if found.disk_bytes > found.free_disk:
        shown.append("          That does not fit: choose another --out.")
    return shown


def _steps(recipe: Recipe, epoch: int) -> int:
    """Of the whole run; a probe solves for its head in one."""
    return 1 if recipe.tune == "probe" else max(1, recipe.length.in_steps(epoch))


def _times(found: DryRun) -> list[str]:
    seen = found.measured
    if seen is None or found.seconds is None or found.step_seconds is None:
        return [f"time      not measured: the network does not fit into {found.device}'s memory"]
    whose = "of tensors" if found.device.startswith("cuda") else "of the whole process"
    many = f", {found.processes} processes" if found.processes > 1 else ""
    return [
        f"measured  {byte_size(seen.memory)} {whose} with {seen.images:,} images at once; an image "
        f"takes {_short(seen.backward)} to learn, {_short(seen.forward)} to validate, "
        f"{_short(seen.reading)} to read on one core",
        f"time      {_short(found.step_seconds)} per step, about {clock(found.seconds)} in all "
        f"({found.precision} on {found.device}{many})",
    ]


def _timed(found: DryRun, seen: StepCosts, recipe: Recipe, device: torch.device) -> DryRun:
    """With the time of a step and of the whole run."""
    readers = max(1, loading_processes(recipe, found.processes))

    def passing(images: float, computing: float) -> float:
        if device.type == "cpu":  # reading takes the cores from computing
            return images * (computing + seen.reading / machine.cores())
        return images * max(computing, seen.reading / readers)

    probe = recipe.tune == "probe"
    each = found.images / found.steps / found.processes
    step = passing(each, seen.forward if probe else seen.backward) + seen.update
    validation = passing(found.validated / found.processes, seen.forward)
    return replace(
        found, step_seconds=step, seconds=found.steps * step + found.validations * validation
    )


def _short(seconds: float) -> str:
    """'1.2 s' or '35 ms'."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
