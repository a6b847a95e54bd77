"""A few real steps on random images, with new weights: what they take on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import torch
from torch import nn

from vitral import machine
from vitral.data.datasets import Dataset
from vitral.data.loader import Batch, View, train_batches
from vitral.engines.torch_engine import uses_bf16
from vitral.errors import MachineError
from vitral.model import StepSamples, ViT
from vitral.training import memory, objectives
from vitral.training.ema import EMA
from vitral.training.objectives import Objective, StepPosition
from vitral.training.optimizer import build as build_optimizer
from vitral.training.recipe import Classification, Recipe

SECONDS = 8.0  # for measuring steps; a network that needs longer is measured on fewer images
REPEATS = 3
SLOWER = 0.95  # a size with less than this share of the best rate ends the search
USABLE = 0.9  # share of the free memory that is tried; beyond it a CPU's process may be killed


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCosts:
    """What real steps took.

    Attributes:
        images: computed at once, the largest number within the time and memory.
        forward, backward: seconds per image without and with a backward pass.
        update: seconds of the optimizer and the average, per step.
        reading: seconds that one core needs to read and augment an image.
        memory: the most that the tensors held on a GPU; of the whole process on a CPU.
    """

    images: int
    forward: float
    backward: float
    update: float
    reading: float
    memory: int


def measure(recipe: Recipe, data: Dataset, device: torch.device, part: int) -> StepCosts | None:
    """What learning, validating and reading take on `device`; None where the network does not fit.

    The images learnt at once grow to `part`, unless time or memory end before.
    """
    needed, free = _needed(recipe, device), USABLE * machine.free_memory(device)
    trial = None if needed.total > free else Benchmark.begun(recipe, device)
    if trial is None:
        return None
    images, grown, backward, began = 1, 1, math.inf, time.monotonic()
    while took := trial.seconds(partial(trial.learn, grown), SECONDS / 8):
        images, backward = grown, median(took) / grown
        grown = min(2 * images, part)
        late = time.monotonic() - began + backward * grown > SECONDS
        if images == part or late or needed.total + needed.activations * (grown - 1) > free:
            break
    forward = trial.seconds(partial(trial.validate, images), SECONDS / 8)
    trial.optimizer.zero_grad(set_to_none=True)
    machine.forget_peak(device)
    learnt = trial.seconds(partial(trial.learn, images), 0.0)
    update = trial.seconds(trial.update, SECONDS / 8)
    most = machine.peak_memory(device)
    if not (forward and learnt and update):
        return None
    return StepCosts(
        images=images,
        forward=median(forward) / images,
        backward=backward,
        update=median(update),
        reading=_reading_seconds(recipe, data),
        memory=most,
    )


def fastest_micro_batch(recipe: Recipe, device: torch.device, most: int) -> int:
    """How many images, of 1, 2, 4, ... up to `most`, are learnt fastest at once, per image.

    The search ends where the memory does, where it gets more than 5 % slower, or after 16 seconds.
    Raises MachineError where not even one image fits.
    """
    trial, began = Benchmark.begun(recipe, device), time.monotonic()
    if trial is None:
        raise MachineError(
            f"{recipe.model.name} does not fit into the memory of {device}, not even with one "
            f"image at a time. Choose a smaller model."
        )
    held, free = _needed(recipe, device).activations, USABLE * machine.free_memory(device)
    best, fastest, images = 0.0, 1, 1
    while images <= most and held * images <= free:
        before = time.monotonic()
        seconds = trial.seconds(partial(trial.learn, images), SECONDS / 4)
        rate = images / min(seconds) if seconds else 0.0  # the one that others disturbed least
        if rate <= SLOWER * best:
            break
        if rate > best:
            best, fastest = rate, images
        now = time.monotonic()
        if now - began + 2 * (now - before) > 2 * SECONDS:  # the next takes twice as long
            break
        images *= 2
    del trial
    machine.forget_peak(device)  # a run in this process tells its own
    return fastest


def _needed(recipe: Recipe, device: torch.device) -> memory.Memory:
    """By arithmetic, for one image at a time."""
    bf16 = uses_bf16(recipe.precision, device, recipe.model.width)
    return memory.arithmetic(recipe, 1, device, bf16=bf16)


class Benchmark:
    """A network with new weights on a device, and the parts of a step on random images."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe = recipe
        self.device = device
        self.model = memory.network(recipe).to(device).train()
        self.objective = _objective(recipe, self.model)
        self.average = EMA(self.objective, recipe.ema)
        self.optimizer = build_optimizer(self.objective, recipe.optimizer)
        self.batch = _random_batch(recipe, 1)

    @classmethod
    def begun(cls, recipe: Recipe, device: torch.device) -> Benchmark | None:
        """After a first step, which is slower than those that follow; None: out of memory."""
        try:
            trial = cls(recipe, device)
            trial.learn(1)
            trial.update()
        except (MemoryError, RuntimeError) as error:
            if not memory.ended(error):
                raise
            return None
        return trial

    def learn(self, count: int) -> None:
        """The forward and the backward pass of `count` images, without a teacher's."""
        samples = StepSamples(torch.arange(count, device=self.device), count)
        loss = self.objective(self._random(count), StepPosition(seed=0, samples=samples))
        (loss.total / count).backward()

    def validate(self, count: int) -> None:
        """The forward pass of `count` images, as validation does it."""
        self.objective.eval()
        with torch.no_grad():
            self.objective.observe(self._random(count))
        self.objective.train()

    def update(self) -> None:
        """The optimizer's step, and the average's."""
        if self.recipe.optimizer.clip:
            nn.utils.clip_grad_norm_(self.objective.parameters(), self.recipe.optimizer.clip)
        self.optimizer.step()
        self.average.update(self.objective, 0)

    def seconds(self, part: Callable[[], None], most: float) -> list[float]:
        """Of each of a few repeats, of fewer where they take `most`; empty: out of memory."""
        found: list[float] = []
        while len(found) < REPEATS and sum(found) <= most:
            try:
                self._wait()
                began = time.perf_counter()
                part()
                self._wait()
            except (MemoryError, RuntimeError) as error:
                if not memory.ended(error):
                    raise
                return []
            found.append(time.perf_counter() - began)
        return found

    def _random(self, count: int) -> Batch:
        if len(self.batch.images) != count:  # the same again, so that no time counts their drawing
            self.batch = _random_batch(self.recipe, count)
        return self.batch

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _objective(recipe: Recipe, model: ViT) -> Objective:
    """The recipe's own objective, without a teacher, whose network is not read for this."""
    if isinstance(recipe.objective, Classification):
        recipe = replace(recipe, objective=replace(recipe.objective, teacher=None))
    classes = tuple(str(number) for number in range(recipe.model.classes))
    return objectives.build(model, recipe, classes)


def _random_batch(recipe: Recipe, count: int) -> Batch:
    """So many images of noise, all of the first class."""
    images = torch.randint(256, (count, 3, *recipe.images.size), dtype=torch.uint8)
    return Batch((images,), torch.zeros(count, dtype=torch.int64), torch.arange(count))


def _reading_seconds(recipe: Recipe, data: Dataset) -> float:
    """Of one image in this process; the second batch, since the first also opens the source."""
    count = min(16, len(data.train))
    batches = train_batches(
        data.train,
        [View(recipe.augment, recipe.images)],
        batch=count,
        seed=recipe.seed,
        start_step=0,
        workers=0,
    )
    next(batches)
    began = time.perf_counter()
    next(batches)
    batches.close()
    return (time.perf_counter() - began) / count
