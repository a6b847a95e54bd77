"""A run in memory, and how it begins."""

from __future__ import annotations

import os
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from vitral import machine
from vitral.data.loader import steps_per_epoch
from vitral.data.sources import Arrays, Dataset, Problem
from vitral.engines.torch_engine import uses_bf16
from vitral.errors import MachineError
from vitral.evaluation import Score
from vitral.evaluation.fit import Fitted
from vitral.model import ViT
from vitral.specs import counts
from vitral.training import finetuning, objectives, run_folder, schedule, state
from vitral.training.display import Display
from vitral.training.distributed import wrap
from vitral.training.distributed.process_group import ProcessGroup
from vitral.training.ema import EMA
from vitral.training.loggers import Loggers
from vitral.training.objectives.base import Objective
from vitral.training.optimizer import build as build_optimizer
from vitral.training.recipe import Recipe
from vitral.training.trailing import UnreadStep
from vitral.weights.adapt import adapt
from vitral.weights.read import Weights


@dataclass(frozen=True, kw_only=True, slots=True)
class RunContext:
    """The run itself and its surroundings; nothing of it changes while it learns.

    Attributes:
        recipe: what to do, with the classes of the data in its model.
        data: its images.
        weights: those that it begins from; None draws new ones, or a saved state holds them.
        out: the run folder.
        group: this process's place in the process group.
        display: the progress that a person sees.
        loggers: further places for the record.
        sharded: whether each process holds a piece of the network alone (FSDP2).
    """

    recipe: Recipe
    data: Dataset
    weights: Weights | None
    out: Path
    group: ProcessGroup
    display: Display
    loggers: Loggers
    sharded: bool = False


@dataclass(slots=True)
class Session:
    """A run in memory: its context, and the state that the loop changes.

    Attributes:
        run: what is run, and where.
        objective: all that learns, and its loss.
        forward: what a step calls, the objective with gradients averaged over all processes.
        ema: the averaged weights.
        optimizer: moves the weights.
        progress: how far the run is; the part of the state that is no tensor.
        evaluation: of the last validation.
        fitted: to its images, once the run is finished.
        failed: files that could not be read so far, by path.
        rolled_back_to: the step that a return to a saved state went to last.
        unread: steps that were asked for and are counted, but not read, the oldest first.
    """

    run: RunContext
    objective: Objective
    forward: nn.Module
    ema: EMA
    optimizer: torch.optim.Optimizer
    progress: state.Progress
    evaluation: Score | None = None
    fitted: Fitted | None = None
    failed: dict[str, Problem] = field(default_factory=dict)
    rolled_back_to: int = -1
    unread: deque[UnreadStep] = field(default_factory=deque)
    ticked: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        """Add the time since the last tick to what the run has taken so far."""
        now = time.monotonic()
        self.progress.seconds += now - self.ticked
        self.ticked = now

    @property
    def backbone(self) -> ViT:
        """The network that becomes the artifact."""
        return self.objective.backbone

    @property
    def device(self) -> torch.device:
        """Return where this process computes."""
        return self.run.group.device

    @property
    def epoch_steps(self) -> int:
        """Optimizer steps in one pass over the training images."""
        return steps_per_epoch(len(self.run.data.train), self.run.recipe.data.batch)

    @property
    def batch_size(self) -> int:
        """Images of one optimizer step."""
        return min(self.run.recipe.data.batch, len(self.run.data.train))

    @property
    def micro_batch_size(self) -> int:
        """The most images that a process learns at once."""
        return -(-self.batch_size // (self.run.group.world_size * self.grad_accumulation))

    @property
    def eval_batch_size(self) -> int:
        """Images of a batch that is only looked at: no more than memory is known to hold."""
        return (
            self.micro_batch_size if self.grad_accumulation > 1 else max(64, self.micro_batch_size)
        )

    @property
    def total(self) -> int:
        """Optimizer steps of the whole run; a probe solves for its head in one."""
        if self.run.recipe.tune.kind == "probe":
            return 1
        return max(1, self.run.recipe.length.in_steps(self.epoch_steps))

    @property
    def finished(self) -> bool:
        """Return whether all steps are done, or patience has come to its end."""
        patience = self.run.recipe.patience
        tired = patience is not None and self.progress.validations_without_gain >= patience
        return tired or self.progress.step >= self.total

    @property
    def validation_due(self) -> bool:
        """Return whether validation is due at this step and not done."""
        step = self.progress.step
        every = self.run.recipe.evaluate_every.in_steps(self.epoch_steps)
        due = step > 0 and (step % max(1, every) == 0 or step == self.total)
        return due and self.progress.validated_step != step

    @property
    def epoch(self) -> float:
        """Passes over the training images so far."""
        return self.epochs_of(self.progress.step)

    def epochs_of(self, steps: int) -> float:
        """Return how many passes over the training images so many steps are."""
        return round(steps / self.epoch_steps, 4)

    @property
    def grad_accumulation(self) -> int:
        """Return into how many micro-batches each process cuts its piece of a step."""
        return self.progress.accumulate or self.run.recipe.accumulate

    @property
    def workers(self) -> int:
        """Loading processes of this process; they never change what is loaded."""
        if self.run.recipe.data.workers is None and isinstance(self.run.data.train.reader, Arrays):
            return 0  # a process boundary costs more than drawing a tiny picture
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes on this machine
        return loading_processes(self.run.recipe, beside)


def loading_processes(recipe: Recipe, beside: int) -> int:
    """Return the loading processes of each process that trains with `beside` - 1 others here."""
    if recipe.data.workers is not None:
        return min(recipe.data.workers, 2 * machine.cores())  # a thousand would stop the machine
    return max(1, min(16, machine.cores() // beside - 1))


def begin_run(run: RunContext) -> Session:
    """Return the first state of a run, the same in all processes; the caller seeds torch.

    Raises what building the network, reading a teacher and an impossible schedule raise.
    """
    recipe = run.recipe
    backbone = _network(run)
    labels = run.data.train.labels
    objective = objectives.build(
        backbone, recipe, run.data.classes, labels, announce=run.display.note
    )
    bf16 = uses_bf16(recipe.precision, run.group.device, recipe.model.width)
    if recipe.compile:
        wrap.compile_blocks(backbone)
    if run.sharded:
        wrap.shard(objective, run.group, bf16=bf16)
    session = Session(
        run=run,
        objective=objective,
        forward=wrap.wrap_ddp(objective, run.group, sharded=run.sharded),
        ema=EMA(objective, recipe.ema),
        optimizer=build_optimizer(objective, recipe.optimizer),
        progress=state.Progress(),
    )
    if recipe.tune.kind != "probe":
        schedule.check(recipe.schedule, session.total, session.epoch_steps)
    for line in run_folder.summary_lines(
        recipe, run.data, backbone, run.group, started=run.weights is not None, bf16=bf16
    ):
        run.display.note(line)
    return session


def _network(run: RunContext) -> ViT:
    """The network with its first weights, and with what is to be tuned of it."""
    recipe = run.recipe
    try:
        model = finetuning.untuned(recipe)
        if run.weights is not None:
            tensors, notes = adapt(run.weights, recipe.model, run.data.classes)
            model.load_state_dict(tensors)
            for line in notes:
                run.display.note(f"start  {line}")
        finetuning.prepare(model, recipe.tune)
        return model.to(run.group.device).train()
    except (RuntimeError, MemoryError) as error:
        if not machine.is_out_of_memory(error):
            raise
        billions = counts.parameters(recipe.model) / 1e9
        raise MachineError(
            f"A model of {billions:.1f} billion parameters does not fit into "
            f"the memory of {run.group.device} ({str(error).splitlines()[0][:80]}). Choose a "
            f"smaller one."
        ) from None
