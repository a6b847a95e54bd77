"""One step of the optimizer: the only place with a backward pass."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vitral import machine
from vitral.data.loader import Batch, seed_of, train_batches
from vitral.data.order import share
from vitral.data.problems import refuse_many_unreadable
from vitral.data.sources import Problem
from vitral.errors import MachineError, ModelError
from vitral.model import StepSamples
from vitral.training import run_folder, schedule
from vitral.training.distributed import wrap
from vitral.training.distributed.process_group import full
from vitral.training.objectives.base import Loss, StepPosition, short_name
from vitral.training.session import Session
from vitral.training.trailing import Fetched, UnreadStep, to_device


class Diverged(ModelError):
    """A loss or gradient that is not finite; the step was not applied."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """The outcome of one step of the optimizer, over all processes.

    Attributes:
        loss: mean over its images.
        images: how many could be read.
        measures: what the objective measured beside the loss, sums over the images.
        lr: learning rate of the head's parameters.
    """

    loss: float
    images: int
    measures: Mapping[str, float]
    lr: float = 0.0


def steps_left(session: Session) -> Generator[list[Batch]]:
    """This process's parts of each step that is left, without end."""
    recipe = session.run.recipe
    batches = train_batches(
        session.run.data.train,
        session.objective.views,
        batch=recipe.data.batch,
        seed=recipe.seed,
        start_step=session.progress.step,
        workers=session.workers,
        rank=session.run.group.rank,
        world=session.run.group.world_size,
        accumulate=session.grad_accumulation,
        note=session.run.display.note,
    )
    with contextlib.closing(batches):
        while True:
            yield [next(batches) for _ in range(session.grad_accumulation)]


def step(
    session: Session,
    micro_batches: list[Batch],
    *,
    stop_requests: Sequence[int] = (),
    save_due: bool = False,
) -> UnreadStep:
    """Take one optimizer step on this process's micro-batches; weights move, progress does not.

    The gradient is that of the mean loss over all images of the step that could be read, however
    many processes and micro-batches they came in. Nothing here waits for a GPU: `read` tells what
    came of it. A step whose loss or gradient is not finite leaves the weights as they are.
    `stop_requests` fills when somebody wants the run to stop, `save_due` says that this process
    wants the state saved.
    """
    recipe = session.run.recipe
    group = session.run.group
    number = session.progress.step
    report_unreadable(session, [problem for batch in micro_batches for problem in batch.failed])
    counts = (sum(len(batch.images) for batch in micro_batches), bool(stop_requests), save_due)
    images, stops, saves = group.all_reduce_sum(*map(float, counts))
    rate = recipe.optimizer.lr * session.progress.rate
    rate *= schedule.multiplier(recipe.schedule, number, session.total, session.epoch_steps)
    for settings in session.optimizer.param_groups:
        settings["lr"] = rate * settings["scale"]
    total = torch.zeros((), device=session.device)
    measured: dict[str, Tensor] = {}
    for index, batch in enumerate(micro_batches):
        wrap.sync_gradients(session.forward, index == len(micro_batches) - 1)
        readable = len(batch.images) > 0
        # the other processes wait for the gradients of one that could read nothing
        part = batch if readable else _black(batch)
        loss: Loss = session.forward(part, _position(session, batch, index))
        # DDP and FSDP average the gradients of the processes, which a sum over all images is not
        (loss.total * (readable * group.world_size / max(images, 1))).backward()
        total = total + loss.total.detach() * readable
        for name, value in loss.measures.items():
            measured[name] = measured.get(name, 0) + value * readable
    sums = torch.stack([value.to(precise(total)) for value in (total, *measured.values())])
    group.all_reduce_in_place(sums)
    gradients, norms = _clipped(session, recipe.optimizer.clip)
    if images:
        fine = torch.isfinite(sums[0]) & torch.isfinite(norms).all()
        # the name by which torch's own optimizers are told, without anybody waiting for the answer
        session.optimizer.found_inf = (~fine).float()  # type: ignore[attr-defined]
        _update(session)
        session.ema.update(session.objective, number)
        session.objective.after_update(number)
    session.optimizer.zero_grad(set_to_none=True)
    return UnreadStep(
        number=number,
        images=int(images),
        lr=session.optimizer.param_groups[0]["lr"],
        indices=tuple(int(i) for batch in micro_batches for i in batch.indices),
        measures=tuple(measured),
        gradients=gradients,
        values=Fetched(torch.cat([sums, norms.to(sums)])),
        stop_requested=stops > 0,
        save_due=saves > 0,
    )


def read(session: Session, taken: UnreadStep) -> StepResult:
    """Wait for what a step measured.

    Raises Diverged, in all processes, with the progress back at that step: neither it nor one that
    was asked for after it may reach a saved state.
    """
    lost, *numbers = taken.values.read()
    sums = numbers[: len(taken.measures)]
    norms = numbers[len(taken.measures) :]
    loss = lost / max(taken.images, 1)
    if not all(map(math.isfinite, (loss, *norms))):
        session.progress.step = taken.number
        raise _diverged(session, taken, loss, dict(zip(taken.gradients, norms, strict=True)))
    measures = dict(zip(taken.measures, sums, strict=True))
    return StepResult(loss=loss, images=taken.images, measures=measures, lr=taken.lr)


def precise(like: Tensor) -> torch.dtype:
    """Return the type in which sums of a device are kept; Apple's has no float64."""
    return torch.float32 if like.device.type == "mps" else torch.float64


def _clipped(session: Session, limit: float) -> tuple[tuple[str, ...], Tensor]:
    """The names of the gradients and the norm of each, before all of them were clipped together."""
    learning = session.objective.named_parameters()
    named = [(short_name(name), p) for name, p in learning if p.grad is not None]
    norms = full(torch.stack(torch._foreach_norm([p.grad for _, p in named if p.grad is not None])))
    if limit:
        total = torch.linalg.vector_norm(norms)
        nn.utils.clip_grads_with_norm_([p for _, p in named], limit, total)
    return tuple(name for name, _ in named), norms


def _update(session: Session) -> None:
    """The optimizer's step; one that memory stops half-way cannot be taken again."""
    try:
        session.optimizer.step()
    except (RuntimeError, MemoryError) as error:
        if not machine.is_out_of_memory(error):
            raise
        raise MachineError(
            f"The memory of {session.device} ended in the optimizer's own step, which smaller "
            f"batches do not help. Choose a smaller model, --tune lora, --devices with --shard, or "
            f"--set optimizer.kind=sgd."
        ) from None


def _position(session: Session, batch: Batch, index: int) -> StepPosition:
    """Where the micro-batch stands in its step; torch is seeded for it."""
    recipe = session.run.recipe
    group = session.run.group
    number = session.progress.step
    place = group.rank * session.grad_accumulation + index
    # Drop path is drawn for the whole step and cut into micro-batches; dropout of elements cannot
    # be, and micro-batches that drew the same numbers would repeat one another.
    apart = [place] if place and (recipe.noise.dropout or recipe.noise.attention_dropout) else []
    torch.manual_seed(seed_of(recipe.seed, "step", number, *apart))
    rows = share(
        list(range(session.batch_size)), place, group.world_size * session.grad_accumulation
    )
    sample_ids = [rows[place] for place in batch.places[: len(batch.images)]] or rows[:1]
    return StepPosition(
        seed=seed_of(recipe.seed, "step", number),
        samples=StepSamples(
            to_device(torch.tensor(sample_ids), session.device), session.batch_size
        ),
    )


def _black(batch: Batch) -> Batch:
    """A batch of one black image of no meaning, in the place of one of which nothing was read."""
    views = tuple(view.new_zeros((1, *view.shape[1:])) for view in batch.views)
    labels = batch.labels.new_zeros((1, *batch.labels.shape[1:]))
    return replace(batch, views=views, labels=labels, mix_partner=None)


def report_unreadable(session: Session, failed: list[Problem]) -> None:
    """Name the files that no process could read, of either split; DataError when too many."""
    if not session.run.group.all_reduce_sum(len(failed))[0]:
        return
    by_path = {
        problem.path: problem for part in session.run.group.all_gather(failed) for problem in part
    }
    fresh = [problem for path, problem in by_path.items() if path not in session.failed]
    for problem in fresh:
        session.run.display.note(f"left out: {problem.path}: {problem.reason}")
    session.failed |= by_path
    with session.run.group.on_main() as main:
        if main and fresh:
            run_folder.list_problems(session.run.out, fresh)
    refuse_many_unreadable(
        list(session.failed.values()),
        len(session.run.data.train) + len(session.run.data.val) - len(session.failed),
        session.run.data.source,
        session.run.recipe.data.allow_unreadable,
    )


def _diverged(
    session: Session, taken: UnreadStep, loss: float, norms: Mapping[str, float]
) -> Diverged:
    """The error for a loss or gradient that is not finite, with the first tensor that shows it."""
    named = [(short_name(name), p) for name, p in session.objective.named_parameters()]
    fine = ((name, bool(torch.isfinite(full(parameter)).all())) for name, parameter in named)
    suspects = [f"weight '{name}'" for name, finite in fine if not finite]
    suspects += [f"gradient of '{name}'" for name, norm in norms.items() if not math.isfinite(norm)]
    bad = next(iter(suspects), "the loss itself")
    indices = [i for process in session.run.group.all_gather(taken.indices) for i in process]
    keys = ", ".join(session.run.data.train.key(i) for i in indices[:3])
    return Diverged(
        f"Step {taken.number} is not finite: loss {loss:g}, first bad tensor: {bad}, "
        f"learning rate {taken.lr:.2g}, batch of {len(indices)} beginning with {keys}. It was not "
        f"applied."
    )
