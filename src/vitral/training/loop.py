"""The one training loop.

train(recipe, data, weights, Path("run"))   a new run folder
resume(data, weights, Path("run"))          goes on with the very next step; on a CPU the final
                                            weights are bit-equal to those of a run that was never
                                            interrupted

Nothing is opened here: the images and the weights to start from are handed down by
`vitral.planning`.

Under torchrun every process calls the same function, and all return the same run.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from vitral.data.datasets import Dataset
from vitral.errors import DataError, Interrupted, MachineError, VitralError
from vitral.training import linear_probe, memory, run_folder, sample_sheet, state, validation
from vitral.training.display import Display
from vitral.training.distributed.process_group import Ranks, joined
from vitral.training.interrupts import interrupts
from vitral.training.loggers import Loggers
from vitral.training.recipe import Recipe
from vitral.training.recovery import begin, returned, smaller_parts
from vitral.training.run_folder import Run
from vitral.training.session import Session, start
from vitral.training.step import Diverged, StepResult, step, steps_left
from vitral.weights.read import Weights

LOG_LINES = 400  # lines of metrics.jsonl that a whole run writes, whatever its length


def train(  # noqa: PLR0913 - each has a name at every call
    recipe: Recipe,
    data: Dataset,
    weights: Weights | None,
    out: Path,
    *,
    heading: str | None = None,
    device: str | None = None,
    display: Display | None = None,
    shard: bool = False,
    log: Sequence[str] = (),
) -> Run:
    """Train `recipe` from its first step into a new run folder.

    Args:
        recipe: what to do; its `start` says where `weights` are from and is not read here.
        data: its images.
        weights: those to continue; None draws new ones.
        out: the folder; where torchrun has started the processes again, one that exists goes on.
        heading: a line to show first, once nothing stands in the way.
        device: such as "cuda:1"; by default the fastest.
        display: who shows it.
        shard: give each process a piece of the network (FSDP2) instead of all of it (DDP).
        log: further places for the record, see `vitral.training.loggers`.

    Raises UsageError for an `out` that exists or lies inside the data, DataError for unusable data,
    MachineError for a folder or device that cannot be used, ModelError when training diverges, and
    Interrupted after Ctrl-C, with the state saved.
    """
    with joined(device, alone=not shard) as ranks, torch.random.fork_rng(_devices(ranks)):
        display = display or Display(quiet=not ranks.first)
        recipe = run_folder.complete(recipe, data)
        if ranks.restarts and ranks.of_first(run_folder.holds(out, recipe)):
            return _go_on(data, weights, out, ranks, display, shard, log)
        with ranks.writing() as first:
            if first:
                run_folder.check_new(out, recipe.data.source)
        torch.manual_seed(recipe.seed)
        if heading is not None:
            display.note(heading)
        loggers = _loggers(log, out, recipe, ranks, display)
        session = start(recipe, data, weights, out, ranks, display, loggers=loggers, shard=shard)
        with ranks.writing() as first:
            if first:
                run_folder.create(out, recipe, data)
        with run_folder.locked(
            out, ranks
        ):  # outside the try: another's folder is not ours to discard
            try:
                return _shown_and_fit(session)
            except (VitralError, RuntimeError):
                if ranks.first:
                    run_folder.discard(out)
                raise


def resume(
    data: Dataset,
    weights: Weights | None,
    out: Path,
    *,
    device: str | None = None,
    display: Display | None = None,
    shard: bool = False,
    log: Sequence[str] = (),
) -> Run:
    """Go on with the run in `out` from its newest whole state (or from the start, if none).

    `data` are its images; `weights` those that it began from, which only a run without a whole
    state needs. The number of processes, and whether they shard the network, may be another than
    before.
    Raises UsageError when `out` is no run, DataError when the data changed since it began.
    """
    with joined(device, alone=not shard) as ranks, torch.random.fork_rng(_devices(ranks)):
        display = display or Display(quiet=not ranks.first)
        return _go_on(data, weights, out, ranks, display, shard, log)


def _loggers(
    names: Sequence[str], out: Path, recipe: Recipe, ranks: Ranks, display: Display
) -> Loggers:
    return Loggers(names if ranks.first else (), out, recipe.to_dict(), note=display.note)


def _devices(ranks: Ranks) -> list[torch.device]:
    return [ranks.device] if ranks.device.type == "cuda" else []


def _go_on(
    data: Dataset,
    weights: Weights | None,
    out: Path,
    ranks: Ranks,
    display: Display,
    shard: bool,
    log: Sequence[str],
) -> Run:
    recipe, fingerprint = run_folder.read(out)
    if data.fingerprint != fingerprint:
        raise DataError(
            f"The images in {recipe.data.source} changed since {out} began, so it cannot go on "
            f"exactly. Put the old files back, or start a new run."
        )
    with run_folder.locked(out, ranks):
        for slot in state.damaged(out / "state"):
            display.note(f"passed over: state/{slot} is not whole")
        loggers = _loggers(log, out, recipe, ranks, display)
        session = begin(recipe, data, weights, out, ranks, display, loggers, shard=shard)
        display.note(f"resuming {out} at step {session.progress.step} of {session.total}")
        return _shown_and_fit(session)


def _shown_and_fit(session: Session) -> Run:
    """problems.csv and views.jpg, where they are not there yet, then all that is left to do."""
    recipe, sheet = session.recipe, session.out / "views.jpg"
    with session.ranks.writing() as first:
        if first:
            run_folder.list_problems(session.out, session.data.problems)
            if recipe.tune != "probe" and not sheet.exists():  # a probe sees no views
                seen = (session.data.train, recipe.augment, recipe.images)
                sample_sheet.write(sheet, *seen, seed=recipe.seed)
    return fit(session)


def fit(session: Session) -> Run:
    """All remaining steps, then the artifacts, predictions.csv and report.html."""
    with session.display, session.loggers, interrupts() as asked:
        while True:
            try:
                run_steps(session, asked)
                return validation.finish(session)
            except Diverged as error:
                session = returned(session, error)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if session.ranks.lost(error):
                    raise MachineError("Another process of this run has stopped.") from None
                if not memory.ended(error):
                    raise
                smaller_parts(session)


def run_steps(session: Session, asked: list[int]) -> None:
    """Steps, validations and saved states until the run is done."""
    progress, recipe, ranks = session.progress, session.recipe, session.ranks
    saved = time.monotonic()
    if session.owes_validation:  # stopped between the step and its validation
        validation.validate(session)
        save_state(session)
    with contextlib.closing(steps_left(session)) as steps:
        while not session.done:
            if recipe.tune == "probe":
                result = linear_probe.solve_head(session)
            else:
                due = time.monotonic() - saved >= recipe.save_seconds
                result = step(session, next(steps), stop_requests=asked, save_due=due)
            record(session, result)
            stops = result.stop_requested or (ranks.count == 1 and bool(asked))
            validates = session.owes_validation and not stops
            if validates:
                validation.validate(session)
            if validates or stops or result.save_due:
                save_state(session)
                saved = time.monotonic()
            if stops and (not session.done or session.owes_validation):
                raise Interrupted(
                    f"Stopped after step {progress.step} of {session.total}; the state is saved. "
                    f"Go on with: vitral train --resume {session.out}"
                )
    if session.recipe.patience is not None and progress.step < session.total:
        session.display.note(
            f"stopped early: {progress.waited} validations without a better one than at step "
            f"{progress.best_step}"
        )
    ranks.wait()


def record(session: Session, result: StepResult) -> None:
    """Count a step, show it, and write a line of metrics.jsonl now and then."""
    progress, lr = session.progress, session.optimizer.param_groups[0]["lr"]
    progress.step += 1
    if result.images:
        progress.loss_sum += result.loss
        progress.loss_count += 1
    if result.measures:
        for name, total in result.measures.items():
            progress.measures[name] = progress.measures.get(name, 0.0) + total
        progress.seen += result.images
    session.tick()
    session.display.step(
        progress.step,
        session.total,
        result.images,
        loss=result.loss,
        lr=lr,
        measures={n: total / max(result.images, 1) for n, total in result.measures.items()},
    )
    if progress.step % max(1, session.total // LOG_LINES) and progress.step != session.total:
        return
    line: dict[str, object] = {
        "step": progress.step,
        "epoch": session.epoch,
        "loss": progress.loss_sum / max(progress.loss_count, 1),
        "lr": lr,
        "seconds": round(progress.seconds, 2),
        "memory": session.display.memory,
    }
    if progress.seen:
        line |= {name: total / progress.seen for name, total in progress.measures.items()}
    if rate := session.display.images_per_second:
        line["images_per_second"] = round(rate, 2)
    progress.loss_sum = 0.0
    progress.loss_count = 0
    progress.measures = {}
    progress.seen = 0
    validation.log(session, line)


def save_state(session: Session) -> None:
    """One of the two resume slots."""
    tensors = state.gather(session.objective, session.ema, session.optimizer)
    state.save(session.out / "state", tensors, session.progress, session.ranks)
    session.display.pause()
