"""One step of the optimizer: the only place with a backward pass."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitral.data.loader import Batch, View, seed_of, train_batches
from vitral.data.order import share
from vitral.data.problems import refuse_many_unreadable
from vitral.data.sources import Problem
from vitral.engines.torch_engine import autocast
from vitral.errors import MachineError, ModelError
from vitral.images import augment, preprocess
from vitral.model import StepSamples
from vitral.training import memory, run_folder, schedule
from vitral.training.distributed import wrap
from vitral.training.distributed.process_group import whole
from vitral.training.objectives import classification
from vitral.training.session import Session


class Diverged(ModelError):
    """A loss or gradient that is not finite; the step was not applied."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a step found, over all processes.

    Attributes:
        loss: mean over its images.
        images: how many could be read.
        correct: how many were right before the step; None where labels are mixed or multi-label.
        asked: whether somebody asked to stop.
        due: whether the first process wants the state saved.
    """

    loss: float
    images: int
    correct: int | None
    asked: bool
    due: bool


def steps_left(session: Session) -> Generator[list[Batch]]:
    """This process's parts of each step that is left, without end."""
    recipe = session.recipe
    batches = train_batches(
        session.data.train,
        [View(recipe.augment, recipe.images)],
        batch=recipe.data.batch,
        seed=recipe.seed,
        start_step=session.progress.step,
        workers=session.workers,
        rank=session.ranks.index,
        world=session.ranks.count,
        accumulate=session.parts,
    )
    with contextlib.closing(batches):
        while True:
            yield [next(batches) for _ in range(session.parts)]


def step(
    session: Session, parts: list[Batch], *, asked: Sequence[int] = (), due: bool = False
) -> Learnt:
    """One optimizer step on this process's parts of it; the model moves, progress does not.

    The gradient is that of the mean loss over all images of the step that could be read, however
    many processes and parts they came in. `asked` fills when somebody wants the run to stop, `due`
    says that this process wants the state saved. Raises Diverged, in all processes, before
    anything is applied.
    """
    recipe, ranks, number = session.recipe, session.ranks, session.progress.step
    report_unreadable(session, [problem for part in parts for problem in part.failed])
    (images,) = ranks.sums(sum(len(part.images) for part in parts))
    rate = recipe.optimizer.lr * session.progress.rate
    rate *= schedule.multiplier(recipe.schedule, number, session.total, session.epoch_steps)
    for group in session.optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    total = correct = torch.zeros((), device=session.device)
    counted = not recipe.augment.mixes and not session.data.multi_label
    for index, part in enumerate(parts):
        wrap.synchronise(session.forward, index == len(parts) - 1)
        loss, right = _learn(session, part, index, images, counted)
        total, correct = total + loss, correct + right
    stats = (total.item(), correct.item(), float(bool(asked)), float(due))
    lost, good, wishes, wanted = ranks.sums(*stats)
    learnt = Learnt(
        loss=lost / max(images, 1),
        images=int(images),
        correct=int(good) if counted else None,
        asked=wishes > 0,
        due=wanted > 0,
    )
    limit = recipe.optimizer.clip or float("inf")
    norm = whole(nn.utils.clip_grad_norm_(session.model.parameters(), limit))
    if not bool(torch.isfinite(norm)) or not math.isfinite(learnt.loss):
        raise _diverged(session, parts, learnt.loss)
    if images:
        _move(session)
        session.average.update(session.model, number)
    session.optimizer.zero_grad(set_to_none=True)
    return learnt


def _move(session: Session) -> None:
    """The optimizer's step; one that memory stops half-way cannot be taken again."""
    try:
        session.optimizer.step()
    except (RuntimeError, MemoryError) as error:
        if not memory.ended(error):
            raise
        raise MachineError(
            f"The memory of {session.device} ended in the optimizer's own step, which smaller "
            f"batches do not help. Choose a smaller model, --tune lora, --devices with --shard, or "
            f"--set optimizer.kind=sgd."
        ) from None


def _learn(
    session: Session, part: Batch, index: int, images: float, counted: bool
) -> tuple[Tensor, Tensor]:
    """Forward and backward of one part; the sum of its losses, and how many were right."""
    recipe, ranks = session.recipe, session.ranks
    inputs, targets, samples = _prepared(session, part, index)
    empty = len(inputs) == 0
    if empty:  # the other processes wait for this one's gradients
        inputs = inputs.new_zeros(1, *inputs.shape[1:])
        targets = targets.new_zeros(1, *targets.shape[1:])
    with autocast(recipe.precision, session.device, recipe.model.width):
        outputs = session.forward(inputs, samples)
        taught = None if session.teacher is None else session.teacher(inputs)
    loss = classification.loss(
        outputs,
        targets,
        recipe.objective,
        weights=session.class_weights,
        taught=taught,
        multi_label=session.data.multi_label,
    )
    loss = loss * 0 if empty else loss
    (loss * (ranks.count / max(images, 1))).backward()  # processes average what they have
    right = torch.zeros((), device=session.device)
    if counted and not empty:
        mean = outputs[0] if len(outputs) == 1 else torch.stack(outputs).mean(0)
        right = (mean.detach().argmax(1) == targets).sum()
    return loss.detach(), right


def _prepared(session: Session, part: Batch, index: int) -> tuple[Tensor, Tensor, StepSamples]:
    """Images and targets, mixed where the recipe mixes, and their samples; torch is seeded."""
    recipe, ranks, number = session.recipe, session.ranks, session.progress.step
    seed, place = seed_of(recipe.seed, "step", number), ranks.index * session.parts + index
    noise, parts = recipe.noise, ranks.count * session.parts
    # Drop path is drawn for the whole step and cut into parts; dropout of elements cannot be, and
    # parts that drew the same numbers would repeat one another.
    apart = [place] if place and (noise.dropout or noise.attention_dropout) else []
    torch.manual_seed(seed_of(recipe.seed, "step", number, *apart))
    rows = share(list(range(session.step_images)), place, parts)
    own = [rows[number] for number in part.places[: len(part.images)]] or rows[:1]
    samples = StepSamples(torch.tensor(own, device=session.device), session.step_images)

    def moved(batch: Batch) -> tuple[Tensor, Tensor]:
        pixels = batch.images.to(session.device, non_blocking=True)
        labels = batch.labels.to(session.device, non_blocking=True)
        return preprocess.normalise(pixels, recipe.images), labels

    images, labels = moved(part)
    if recipe.augment.mixes:
        before = None if part.before is None else moved(part.before)
        classes = len(session.data.classes)
        images, labels = augment.mix(images, labels, classes, recipe.augment, seed, before)
    return images, labels, samples


def report_unreadable(session: Session, mine: list[Problem]) -> None:
    """Name the files that no process could read, of either split; DataError when too many."""
    if not session.ranks.sums(len(mine))[0]:
        return
    found = {problem.path: problem for part in session.ranks.gathered(mine) for problem in part}
    fresh = [problem for path, problem in found.items() if path not in session.failed]
    for problem in fresh:
        session.display.note(f"left out: {problem.path}: {problem.reason}")
    session.failed |= found
    with session.ranks.writing() as first:
        if first and fresh:
            run_folder.list_problems(session.out, fresh)
    refuse_many_unreadable(
        list(session.failed.values()),
        len(session.data.train) + len(session.data.val) - len(session.failed),
        session.data.source,
        session.recipe.data.allow_unreadable,
    )


def _diverged(session: Session, parts: list[Batch], loss: float) -> Diverged:
    """The error for a loss or gradient that is not finite, with the first tensor that shows it."""
    named = list(session.model.named_parameters())
    suspects: list[tuple[str, Tensor]] = [(f"weight '{name}'", p) for name, p in named]
    suspects += [(f"gradient of '{name}'", p.grad) for name, p in named if p.grad is not None]
    finite = ((what, bool(torch.isfinite(whole(tensor)).all())) for what, tensor in suspects)
    bad = next((what for what, fine in finite if not fine), "the loss itself")
    mine = [int(i) for part in parts for i in part.indices]
    indices = [i for found in session.ranks.gathered(mine) for i in found]
    keys = ", ".join(session.data.train.key(i) for i in indices[:3])
    lr = session.optimizer.param_groups[0]["lr"]
    session.optimizer.zero_grad(set_to_none=True)
    return Diverged(
        f"Step {session.progress.step} is not finite: loss {loss:g}, first bad tensor: {bad}, "
        f"learning rate {lr:.2g}, batch of {len(indices)} beginning with {keys}. It was not "
        f"applied."
    )
