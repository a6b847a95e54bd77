"""A few real steps on random images, with new weights: what they take on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import torch
from torch import nn

from vitral import machine
from vitral.data.loader import Batch, View, train_batches
from vitral.data.sources import Dataset
from vitral.errors import MachineError
from vitral.model import StepSamples
from vitral.planning.memory import estimate
from vitral.training import finetuning, objectives
from vitral.training.ema import EMA
from vitral.training.objectives.base import StepPosition
from vitral.training.optimizer import build as build_optimizer
from vitral.training.recipe import Classification, Recipe

SECONDS = 8.0  # for measuring steps; a network that needs longer is measured on fewer images
REPEATS = 3
SLOWER = 0.95  # a size with less than this share of the best rate ends the search
USABLE = 0.9  # share of the free memory that is tried; beyond it a CPU's process may be killed


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCosts:
    """The times and the memory that real steps took.

    Attributes:
        images: computed at once, the largest number within the time and memory.
        forward: seconds per image of validation.
        backward: seconds per image of training, its forward pass included.
        update: seconds of the optimizer and the averaged weights, per step.
        reading: seconds that one core needs to read and augment an image.
        memory: the most bytes that the tensors held on a GPU; of the whole process on a CPU.
    """

    images: int
    forward: float
    backward: float
    update: float
    reading: float
    memory: int


def measure(
    recipe: Recipe, data: Dataset, device: torch.device, micro_batch: int
) -> StepCosts | None:
    """Measure training, validation and reading on `device`; None where the network does not fit.

    The images learnt at once grow to `micro_batch`, unless time or memory end before.
    """
    fits = estimate(recipe, 1, device).total <= USABLE * machine.free_memory(device)
    benchmark = Benchmark.begun(recipe, device) if fits else None
    sizes = [] if benchmark is None else list(benchmark.growing(micro_batch, SECONDS))
    if benchmark is None or not sizes:
        return None
    images, times = sizes[-1]
    forward = benchmark.seconds(partial(benchmark.validate, images), SECONDS / 8)
    benchmark.optimizer.zero_grad(set_to_none=True)
    machine.forget_peak(device)
    learnt = benchmark.seconds(partial(benchmark.learn, images), 0.0)
    update = benchmark.seconds(benchmark.update, SECONDS / 8)
    peak = machine.peak_memory(device)
    if not (forward and learnt and update):
        return None
    return StepCosts(
        images=images,
        forward=median(forward) / images,
        backward=median(times) / images,
        update=median(update),
        reading=_reading_seconds(recipe, data),
        memory=peak,
    )


def fastest_micro_batch(recipe: Recipe, device: torch.device, most: int) -> int:
    """Search how many images, of 1, 2, 4, ... up to `most`, are learnt fastest at once, per image.

    The search ends where the memory does, where it gets more than 5 % slower, or after 16 seconds.
    Raises MachineError where not even one image fits.
    """
    benchmark = Benchmark.begun(recipe, device)
    if benchmark is None:
        raise MachineError(
            f"{recipe.model.name} does not fit into the memory of {device}, not even with one "
            f"image at a time. Choose a smaller model."
        )
    best = 0.0
    fastest = 1
    for images, times in benchmark.growing(1 << (most.bit_length() - 1), 2 * SECONDS):
        rate = images / min(times)  # the one that others disturbed least
        if rate <= SLOWER * best:
            break
        if rate > best:
            best = rate
            fastest = images
    del benchmark
    machine.forget_peak(device)  # a run in this process tells its own
    return fastest


def in_fastest_parts(recipe: Recipe, device: torch.device, processes: int = 1) -> Recipe:
    """Return the recipe with its steps cut into the parts that this machine learns fastest.

    Of a step that `processes` share. Raises MachineError where not even one image fits.
    """
    most = max(1, recipe.data.batch // processes)
    part = fastest_micro_batch(recipe, device, most)
    return replace(recipe, accumulate=-(-most // part))


class Benchmark:
    """The objective of a recipe around a network with new weights, and the parts of its step.

    A teacher is left out: its forward pass is not measured, and its weights are not read.

    Args:
        recipe: with the classes of the data in its model.
        device: where it computes.
    """

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        if isinstance(recipe.objective, Classification):
            recipe = replace(recipe, objective=replace(recipe.objective, teacher=None))
        classes = tuple(str(number) for number in range(recipe.model.classes))
        backbone = finetuning.untuned(recipe)
        finetuning.prepare(backbone, recipe.tune)
        self.recipe = recipe
        self.needed = estimate(recipe, 1, device)
        self.free = USABLE * machine.free_memory(device)
        self.objective = objectives.build(backbone.to(device), recipe, classes).train()
        self.ema = EMA(self.objective, recipe.ema)
        self.optimizer = build_optimizer(self.objective, recipe.optimizer)
        self.batch: Batch | None = None

    @classmethod
    def begun(cls, recipe: Recipe, device: torch.device) -> Benchmark | None:
        """Return one after its first step, which is slower than others; None: out of memory."""
        try:
            benchmark = cls(recipe, device)
            benchmark.learn(1)
            benchmark.update()
        except (MemoryError, RuntimeError) as error:
            if not machine.is_out_of_memory(error):
                raise
            return None
        return benchmark

    def learn(self, count: int) -> None:
        """The forward and the backward pass of `count` images."""
        samples = StepSamples(torch.arange(count, device=self.objective.device), count)
        loss = self.objective(self._batch(count), StepPosition(seed=0, samples=samples))
        (loss.total / count).backward()

    def validate(self, count: int) -> None:
        """The forward pass of `count` images, as validation does it."""
        self.objective.eval()
        with torch.no_grad():
            self.objective.observe(self._batch(count))
        self.objective.train()

    def update(self) -> None:
        """The optimizer's step, and the averaged weights'."""
        if self.recipe.optimizer.clip:
            nn.utils.clip_grad_norm_(self.objective.parameters(), self.recipe.optimizer.clip)
        self.optimizer.step()
        self.ema.update(self.objective, 0)
        self.objective.after_update(0)

    def growing(self, most: int, limit: float) -> Iterator[tuple[int, list[float]]]:
        """Time learning 1, 2, 4, ... and `most` images at once; ends where memory or time do.

        Yields the images and the seconds of each repeat; `limit` is in seconds.
        """
        began = time.monotonic()
        images = 1
        while self.needed.total + self.needed.activations * (images - 1) <= self.free:
            before = time.monotonic()
            times = self.seconds(partial(self.learn, images), limit / 8)
            if times:
                yield images, times
            now = time.monotonic()
            late = now - began + 2 * (now - before) > limit  # the next takes twice as long
            if not times or images == most or late:
                return
            images = min(2 * images, most)

    def seconds(self, part: Callable[[], None], most: float) -> list[float]:
        """Time a few repeats of a part, fewer where they take `most`; empty: out of memory."""
        times: list[float] = []
        while len(times) < REPEATS and sum(times) <= most:
            try:
                self._wait()
                began = time.perf_counter()
                part()
                self._wait()
            except (MemoryError, RuntimeError) as error:
                if not machine.is_out_of_memory(error):
                    raise
                return []
            times.append(time.perf_counter() - began)
        return times

    def _batch(self, count: int) -> Batch:
        """Random images of the first class; the same again, so that no time counts drawing them."""
        if self.batch is None or len(self.batch.labels) != count:
            pixels = torch.randint(256, (count, 3, *self.recipe.images.size), dtype=torch.uint8)
            labels = torch.zeros(count, dtype=torch.int64)
            self.batch = Batch((pixels,), labels, indices=torch.arange(count))
        return self.batch

    def _wait(self) -> None:
        if self.objective.device.type == "cuda":
            torch.cuda.synchronize(self.objective.device)


def _reading_seconds(recipe: Recipe, data: Dataset) -> float:
    """Seconds to load one image; of the second batch, since the first also opens the source."""
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
