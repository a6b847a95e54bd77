"""A run in memory, and how it begins."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from vitral import evaluation as scores
from vitral.errors import DataError, MachineError
from vitral.images.datasets import Dataset, open_dataset
from vitral.images.loading import steps_per_epoch
from vitral.images.sources import Arrays, Problem
from vitral.inference import uses_bf16
from vitral.model import build
from vitral.training import folder, state
from vitral.training.display import Display
from vitral.training.optimizer import Average, adamw
from vitral.training.recipe import Recipe
from vitral.weights import incoming
from vitral.weights.start import start as first_weights


@dataclass(slots=True)
class Session:
    """A run in memory: what the loop reads and changes."""

    recipe: Recipe
    data: Dataset
    out: Path
    model: nn.Module
    average: Average
    optimizer: torch.optim.AdamW
    device: torch.device
    progress: state.Progress
    display: Display
    evaluation: scores.Evaluation | None = None
    failed: dict[str, Problem] = field(default_factory=dict)
    ticked: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        """Add the time since the last tick to what the run has taken so far."""
        now = time.monotonic()
        self.progress.seconds, self.ticked = self.progress.seconds + now - self.ticked, now

    @property
    def epoch_steps(self) -> int:
        """Optimizer steps in one pass over the training images."""
        return steps_per_epoch(len(self.data.train), self.recipe.data.batch)

    @property
    def total(self) -> int:
        """Optimizer steps of the whole run."""
        return max(1, self.recipe.length.in_steps(self.epoch_steps))

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
    def workers(self) -> int:
        """Loading processes; they never change what is loaded."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        if self.recipe.data.workers is not None:
            return min(self.recipe.data.workers, 2 * cores)  # a thousand would stop the machine
        if isinstance(self.data.train.reader, Arrays):
            return 0  # a process boundary costs more than drawing a tiny picture
        return max(1, min(16, cores - 1))


def open_data(recipe: Recipe) -> Dataset:
    """The recipe's images, split and checked."""
    data = open_dataset(
        recipe.data.source,
        seed=recipe.data.split_seed,
        val_fraction=recipe.data.val_fraction,
        size=max(recipe.images.size),
        count=recipe.data.count,
        allow_unreadable=recipe.data.allow_unreadable,
    )
    if data.multi_label:
        raise DataError(
            f"{data.source} gives several labels to an image, and training knows one. Give each "
            "image the label that matters; `vitral check` and `vitral shard` take all of them."
        )
    return data


def start(
    recipe: Recipe, data: Dataset, out: Path, device: torch.device, display: Display
) -> Session:
    """The first state of a run; the caller seeds torch."""
    try:
        model = build(recipe.model, drop_path=recipe.drop_path, dropout=recipe.dropout).to(device)
    except (RuntimeError, MemoryError) as error:  # torch's own words for too little memory
        raise MachineError(
            f"A model of {recipe.model.parameters / 1e9:.1f} billion parameters does not fit into "
            f"the memory of {device} ({str(error).splitlines()[0][:80]}). Choose a smaller one."
        ) from None
    notes: tuple[str, ...] = ()
    if recipe.start is not None:
        weights = incoming.read(recipe.start, announce=display.note)
        tensors, notes = first_weights(weights, recipe.model, data.classes)
        model.load_state_dict(tensors)
    session = Session(
        recipe=recipe,
        data=data,
        out=out,
        model=model.train(),
        average=Average(model, recipe.ema),
        optimizer=adamw(model, recipe.optimizer),
        device=device,
        progress=state.Progress(),
        display=display,
    )
    bf16 = uses_bf16(recipe.precision, device)
    for line in folder.introduction(recipe, data, bf16=bf16, device=device):
        display.note(line)
    for line in notes:
        display.note(f"start  {line}")
    return session
