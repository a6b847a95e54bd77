"""A dry run: the memory, time and disk that a run needs, before it begins (`--dry-run`).

    planned = plan(Request(data="photos/"))
    recipe = run_folder.with_data(planned.recipe, planned.data)
    print("\n".join(summary_lines(dry_run(recipe, planned.data, torch.device("cpu")))))

Memory is estimated before anything is allocated; a few real steps on random images, with new
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
from vitral.data.loader import check_shares, steps_per_epoch
from vitral.data.sources import Dataset
from vitral.engines.torch_engine import uses_bf16
from vitral.planning.benchmark import StepCosts, measure
from vitral.planning.memory import Memory, estimate, meta_network
from vitral.specs import counts
from vitral.storage import files
from vitral.training import finetuning, schedule
from vitral.training.recipe import Recipe
from vitral.training.session import loading_processes
from vitral.wording import byte_size, clock


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRun:
    """The numbers of a dry run; their names are those of `--dry-run --json`.

    Attributes:
        parameters: values of the network.
        trainable: those of them that learn.
        gflops: of one image's forward pass, in 1e9 operations; a step takes about three times it.
        steps: of the optimizer.
        images: seen in all steps.
        validations: how often it is validated.
        validated: images of each validation.
        processes: how many train together.
        part: images of the micro-batch that each process computes at once.
        memory: estimated.
        free_memory: bytes free on the device now.
        measured: None where the network does not fit.
        step_seconds: of one step, reading included; None where nothing was measured.
        seconds: of the whole run; None likewise.
        state_bytes: of one saved state.
        disk_bytes: of the run folder at its largest.
        free_disk: bytes free where it will be.
        device: where it computes.
        precision: "bf16" or "fp32".
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
    step_seconds: float | None = None
    seconds: float | None = None
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


def check_steps(recipe: Recipe, data: Dataset, processes: int = 1) -> None:
    """Refuse what would end the run only after its processes have started.

    Raises UsageError for a warm-up longer than the run, or a step with fewer images than it is cut
    into micro-batches.
    """
    if recipe.tune.kind == "probe":  # which knows no steps
        return
    count = len(data.train)
    epoch_steps = steps_per_epoch(count, recipe.data.batch)
    schedule.check(recipe.schedule, _total_steps(recipe, epoch_steps), epoch_steps)
    check_shares(min(recipe.data.batch, count), processes, recipe.accumulate)


def dry_run(
    recipe: Recipe,
    data: Dataset,
    device: torch.device,
    processes: int = 1,
    *,
    out: Path | None = None,
    shard: bool = False,
) -> DryRun:
    """Estimate a whole run, and take a few steps of it on random images; nothing is written.

    Args:
        recipe: with the classes of the data in its model.
        data: the images.
        device: where to compute.
        processes: how many train together; the measurement is of one of them.
        out: the run folder, for the free space there; by default here.
        shard: whether each process holds only its piece of the weights.

    Raises UsageError as `check_steps` does.
    """
    check_steps(recipe, data, processes)
    count = len(data.train)
    probe = recipe.tune.kind == "probe"
    epoch_steps = steps_per_epoch(count, recipe.data.batch)
    steps = _total_steps(recipe, epoch_steps)
    step_images = count if probe else min(recipe.data.batch, count)
    most = max(64, recipe.data.batch)  # a probe only looks at its images
    if not probe:
        most = math.ceil(step_images / processes / recipe.accumulate)
    micro_batch = min(most, math.ceil(step_images / processes))
    shards = processes if shard else 1
    needed = estimate(recipe, micro_batch, device, shards=shards)
    free_memory = machine.free_memory(device)  # before the measurement takes some
    costs = measure(recipe, data, device, micro_batch)
    state_bytes = shards * (needed.weights + needed.optimizer + needed.average)
    bf16 = uses_bf16(recipe.precision, device, recipe.model.width)
    result = DryRun(
        parameters=counts.parameters(recipe.model),
        trainable=finetuning.trainable(meta_network(recipe)),
        gflops=counts.flops(recipe.model) / 1e9,
        steps=steps,
        images=steps * step_images,
        validations=math.ceil(steps / max(1, recipe.evaluate_every.in_steps(epoch_steps))),
        validated=len(data.val),
        processes=processes,
        part=micro_batch,
        memory=needed,
        free_memory=free_memory,
        measured=costs,
        state_bytes=state_bytes,
        # a third slot while it is written, and best/ and last/
        disk_bytes=3 * state_bytes + 8 * counts.parameters(recipe.model),
        free_disk=shutil.disk_usage(files.nearest_parent(out or Path())).free,
        device=str(device),
        precision="bf16" if bf16 else "fp32",
    )
    return result if costs is None else _with_times(result, costs, recipe, device)


def summary_lines(result: DryRun) -> list[str]:
    """Say the numbers of a dry run in a few lines, for the terminal."""
    parts = [(name, value) for name, value in asdict(result.memory).items() if value > 5e5]
    of_which = ", ".join(f"{name} {byte_size(value)}" for name, value in parts)
    validations = "validation" if result.validations == 1 else "validations"
    lines = [
        f"model     {result.parameters / 1e6:.2f} M parameters, {result.trainable / 1e6:.2f} M of "
        f"them learn; {result.gflops:.3g} GFLOPs per image",
        f"length    {result.steps:,} steps, {result.images:,} images seen; "
        f"{result.validations:,} {validations} of {result.validated:,} images",
        f"memory    up to {byte_size(result.memory.total)} with {result.part:,} images at once"
        f"{f' ({of_which})' if of_which else ''}; {byte_size(result.free_memory)} free",
    ]
    if result.memory.total > result.free_memory:
        lines.append(
            "          That may not fit: try --set accumulate=4, --set checkpointing=true, or a "
            "smaller model."
        )
    lines += _time_lines(result)
    lines.append(
        f"disk      {byte_size(result.disk_bytes)}, of which {byte_size(result.state_bytes)} per "
        f"saved state; {byte_size(result.free_disk)} free"
    )
    if result.disk_bytes > result.free_disk:
        lines.append("          That does not fit: choose another --out.")
    return lines


def _total_steps(recipe: Recipe, epoch_steps: int) -> int:
    """Optimizer steps of the whole run; a probe solves for its head in one."""
    return 1 if recipe.tune.kind == "probe" else max(1, recipe.length.in_steps(epoch_steps))


def _time_lines(result: DryRun) -> list[str]:
    costs = result.measured
    if costs is None or result.seconds is None or result.step_seconds is None:
        return [f"time      not measured: the network does not fit into {result.device}'s memory"]
    whose = "of tensors" if result.device.startswith("cuda") else "of the whole process"
    many = f", {result.processes} processes" if result.processes > 1 else ""
    return [
        f"measured  {byte_size(costs.memory)} {whose} with {costs.images:,} images at once; an "
        f"image takes {_short(costs.backward)} to learn, {_short(costs.forward)} to validate, "
        f"{_short(costs.reading)} to read on one core",
        f"time      {_short(result.step_seconds)} per step, about {clock(result.seconds)} in all "
        f"({result.precision} on {result.device}{many})",
    ]


def _with_times(result: DryRun, costs: StepCosts, recipe: Recipe, device: torch.device) -> DryRun:
    """Add the time of a step and of the whole run."""
    workers = max(1, loading_processes(recipe, result.processes))

    def seconds_of(images: float, computing: float) -> float:
        if device.type == "cpu":  # reading takes the cores from computing
            return images * (computing + costs.reading / machine.cores())
        return images * max(computing, costs.reading / workers)

    process_images = result.images / result.steps / result.processes
    computing = costs.forward if recipe.tune.kind == "probe" else costs.backward
    step = seconds_of(process_images, computing) + costs.update
    validation = seconds_of(result.validated / result.processes, costs.forward)
    total = result.steps * step + result.validations * validation
    return replace(result, step_seconds=step, seconds=total)


def _short(seconds: float) -> str:
    """Write '1.2 s' or '35 ms'."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
