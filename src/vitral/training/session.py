"""A run in memory, and how it begins."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from vitral.data.datasets import Dataset
from vitral.data.loader import steps_per_epoch
from vitral.data.sources import Arrays, Problem
from vitral.engines.torch_engine import uses_bf16
from vitral.errors import MachineError
from vitral.evaluation import Score
from vitral.model import ViT
from vitral.specs import Calibration
from vitral.training import finetuning, memory, objectives, run_folder, schedule, state
from vitral.training.display import Display
from vitral.training.distributed import wrap
from vitral.training.distributed.process_group import Ranks
from vitral.training.ema import EMA
from vitral.training.loggers import Loggers
from vitral.training.objectives.base import Objective
from vitral.training.optimizer import build as build_optimizer
from vitral.training.recipe import Recipe
from vitral.weights.adapt import adapt
from vitral.weights.read import Weights


@dataclass(slots=True)
class Session:
    """A run in memory: what the loop reads and changes.

    Attributes:
        recipe, data, weights, out: what is run, on what, from which weights, into which folder.
        ranks: this process among all.
        objective: all that learns, and its loss; forward: what a step calls, the objective with
            its gradients averaged over all processes.
        ema, optimizer, progress: the rest of the state.
        display, loggers: who is told.
        sharded: whether each process holds a piece of the network alone.
        evaluation, calibration: of the last validation; a calibration once the run is done.
        failed: files that could not be read so far.
        returned_to: the step that a return went to last.
    """

    recipe: Recipe
    data: Dataset
    weights: Weights | None
    out: Path
    ranks: Ranks
    objective: Objective
    forward: nn.Module
    ema: EMA
    optimizer: torch.optim.Optimizer
    progress: state.Progress
    display: Display
    loggers: Loggers
    sharded: bool = False
    evaluation: Score | None = None
    calibration: Calibration | None = None
    failed: dict[str, Problem] = field(default_factory=dict)
    returned_to: int = -1
    ticked: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        """Add the time since the last tick to what the run has taken so far."""
        now = time.monotonic()
        self.progress.seconds, self.ticked = self.progress.seconds + now - self.ticked, now

    @property
    def backbone(self) -> ViT:
        """The network that becomes the artifact."""
        return self.objective.backbone

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.ranks.device

    @property
    def epoch_steps(self) -> int:
        """Optimizer steps in one pass over the training images."""
        return steps_per_epoch(len(self.data.train), self.recipe.data.batch)

    @property
    def step_images(self) -> int:
        """Images of one optimizer step."""
        return min(self.recipe.data.batch, len(self.data.train))

    @property
    def part_images(self) -> int:
        """The most images that a process learns at once."""
        return -(-self.step_images // (self.ranks.count * self.parts))

    @property
    def seen_at_once(self) -> int:
        """Images of a batch that is only looked at: no more than memory is known to hold."""
        return self.part_images if self.parts > 1 else max(64, self.part_images)

    @property
    def total(self) -> int:
        """Optimizer steps of the whole run; a probe solves for its head in one."""
        if self.recipe.tune == "probe":
            return 1
        return max(1, self.recipe.length.in_steps(self.epoch_steps))

    @property
    def done(self) -> bool:
        """Whether all steps are done, or patience has come to its end."""
        patience = self.recipe.patience
        tired = patience is not None and self.progress.waited >= patience
        return tired or self.progress.step >= self.total

    @property
    def owes_validation(self) -> bool:
        """Whether validation is due at this step and not done."""
        step, every = self.progress.step, self.recipe.evaluate_every.in_steps(self.epoch_steps)
        due = step > 0 and (step % max(1, every) == 0 or step == self.total)
        return due and self.progress.validated_step != step

    @property
    def epoch(self) -> float:
        """Passes over the training images so far."""
        return round(self.progress.step / self.epoch_steps, 4)

    @property
    def parts(self) -> int:
        """Into how many each process cuts its piece of a step."""
        return self.progress.accumulate or self.recipe.accumulate

    @property
    def workers(self) -> int:
        """Loading processes of this process; they never change what is loaded."""
        if self.recipe.data.workers is None and isinstance(self.data.train.reader, Arrays):
            return 0  # a process boundary costs more than drawing a tiny picture
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes on this machine
        return loading_processes(self.recipe, beside)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def loading_processes(recipe: Recipe, beside: int) -> int:
    """Of each of the processes that train `beside` one another on this machine."""
    if recipe.data.workers is not None:
        return min(recipe.data.workers, 2 * cores())  # a thousand would stop the machine
    return max(1, min(16, cores() // beside - 1))


def start(  # noqa: PLR0913 - each has a name at every call
    recipe: Recipe,
    data: Dataset,
    weights: Weights | None,
    out: Path,
    ranks: Ranks,
    display: Display,
    *,
    loggers: Loggers | None = None,
    shard: bool = False,
) -> Session:
    """The first state of a run, the same in all processes; the caller seeds torch.

    `weights` are those to continue; None draws new ones. `shard` gives each process a piece of the
    network instead of all of it.
    """
    backbone = _network(recipe, data, weights, ranks, display)
    objective = objectives.build(backbone, recipe, data, announce=display.note)
    bf16 = uses_bf16(recipe.precision, ranks.device, recipe.model.width)
    if recipe.compile:
        wrap.compiled(backbone)
    if shard:
        wrap.shard(objective, ranks, bf16=bf16)
    session = Session(
        recipe=recipe,
        data=data,
        weights=weights,
        out=out,
        ranks=ranks,
        objective=objective,
        forward=wrap.spread(objective, ranks, sharded=shard),
        ema=EMA(objective, recipe.ema),
        optimizer=build_optimizer(objective, recipe.optimizer),
        progress=state.Progress(),
        display=display,
        loggers=loggers or Loggers((), out, {}),
        sharded=shard,
    )
    if recipe.tune != "probe":
        schedule.check(recipe.schedule, session.total, session.epoch_steps)
    for line in run_folder.introduction(recipe, data, backbone, ranks, bf16=bf16):
        display.note(line)
    return session


def _network(
    recipe: Recipe, data: Dataset, weights: Weights | None, ranks: Ranks, display: Display
) -> ViT:
    """With its first weights, and with what is to be tuned of it."""
    try:
        model = finetuning.untuned(recipe)
        if weights is not None:
            tensors, notes = adapt(weights, recipe.model, data.classes)
            model.load_state_dict(tensors)
            for line in notes:
                display.note(f"start  {line}")
        finetuning.prepare(model, recipe.tune)
        return model.to(ranks.device).train()
    except (RuntimeError, MemoryError) as error:
        if not memory.ended(error):
            raise
        raise MachineError(
            f"A model of {recipe.model.parameters / 1e9:.1f} billion parameters does not fit into "
            f"the memory of {ranks.device} ({str(error).splitlines()[0][:80]}). Choose a smaller "
            f"one."
        ) from None
