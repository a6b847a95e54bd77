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
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from vitral import machine
from vitral.data import processes
from vitral.data.decisions import Decision, to_lines
from vitral.data.sources import Dataset
from vitral.errors import Interrupted, MachineError, VitralError
from vitral.storage import files
from vitral.training import (
    before,
    linear_probe,
    new_classes,
    places,
    run_folder,
    sample_sheet,
    state,
    trailing,
    validation,
)
from vitral.training.display import Display
from vitral.training.distributed.process_group import check_sharding, initialised
from vitral.training.interrupts import interrupts
from vitral.training.loggers import Loggers
from vitral.training.recipe import Recipe
from vitral.training.recovery import restore, roll_back, split_further
from vitral.training.run_folder import Run
from vitral.training.session import RunContext, Session
from vitral.training.step import Diverged, StepResult, read, step, steps_left
from vitral.weights.read import Weights

LOG_LINES = 400  # lines of metrics.jsonl that a whole run writes, whatever its length


def train(  # noqa: PLR0913 - each has a name at every call
    recipe: Recipe,
    data: Dataset,
    weights: Weights | None,
    out: Path,
    *,
    decisions: Sequence[Decision] = (),
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
        decisions: what was chosen for the user, to show first, once nothing stands in the way.
        device: such as "cuda:1"; by default the fastest.
        display: who shows it.
        shard: give each process a piece of the network (FSDP2) instead of all of it (DDP).
        log: further places for the record, see `vitral.training.loggers`.

    Raises UsageError for an `out` that exists or lies inside the data, DataError for unusable data,
    MachineError for a folder or device that cannot be used, ModelError when training diverges, and
    Interrupted after Ctrl-C, with the state saved.
    """
    with _context(recipe, data, weights, out, device, display, shard, log) as run:
        group = run.group
        recipe = run.recipe
        if group.restarts and group.broadcast(run_folder.is_run_of(out, recipe)):
            return _go_on(run)
        with group.on_main() as main:
            if main:
                run_folder.check_new(out, recipe.data.source)
        torch.manual_seed(recipe.seed)
        for line in to_lines(decisions):
            run.display.note(line)
        session = new_classes.begin(run)
        with run_folder.locked(out, group):
            # once more, outside the try: another run may have begun, and is not ours to discard
            with group.on_main() as main:
                if main:
                    run_folder.check_new(out, recipe.data.source)
            try:
                with group.on_main() as main:
                    if main:
                        run_folder.create(out, recipe, data, decisions)
                return fit(session)
            except (VitralError, RuntimeError):
                if group.is_main:
                    run_folder.remove_unstarted(out)
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
    recipe, fingerprint = run_folder.read(out)
    places.refuse_other_images(out, fingerprint, data, recipe.data.source)
    with _context(recipe, data, weights, out, device, display, shard, log) as run:
        return _go_on(run)


@contextlib.contextmanager
def _context(  # noqa: PLR0913, PLR0917 - what train and resume were given, in their order
    recipe: Recipe,
    data: Dataset,
    weights: Weights | None,
    out: Path,
    device: str | None,
    display: Display | None,
    shard: bool,
    log: Sequence[str],
) -> Iterator[RunContext]:
    """The run in its process group; torch's random numbers are put back at the end."""
    if shard:
        check_sharding(device)
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(initialised(device, alone=not shard))
        devices = [group.device] if group.device.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(devices))
        recipe = run_folder.with_data(recipe, data)
        display = display or Display(quiet=not group.is_main)
        names = log if group.is_main else ()
        loggers = Loggers(names, out, recipe.to_dict(), note=display.note)
        yield RunContext(
            recipe=recipe,
            data=data,
            weights=weights,
            out=out,
            group=group,
            display=display,
            loggers=loggers,
            sharded=shard,
        )


def _go_on(run: RunContext) -> Run:
    with run_folder.locked(run.out, run.group):
        with run.group.on_main() as main:
            if main:
                files.recover(run.out / "best")
                files.recover(run.out / "last")
        for slot in state.damaged(run.out / "state"):
            run.display.note(f"passed over: state/{slot} is not whole")
        session = restore(run)
        step = session.progress.step
        total = session.total
        with run.group.on_main() as main:
            if main:
                places.add_place(run.out, run_folder.read(run.out)[0].data, run.data, step)
        run.display.note(f"resuming {run.out} at step {step} of {total}")
        return fit(session)


def fit(session: Session) -> Run:
    """All remaining steps, then the artifacts, predictions.csv and report.html."""
    _show_data(session)
    before.write(session)
    out = session.run.out
    with session.run.display, session.run.loggers, interrupts() as stop_requests:
        while True:
            try:
                run_steps(session, stop_requests)
                return validation.finish(session)
            except Diverged as error:
                session = roll_back(session, error)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if session.run.group.lost(error):
                    raise MachineError("Another process of this run has stopped.") from None
                if text := processes.lost(error):
                    raise MachineError(f"{text} Go on: vitral train --resume {out}") from None
                if not machine.is_out_of_memory(error):
                    raise
                split_further(session)


def _show_data(session: Session) -> None:
    """Write problems.csv and views.jpg, where they are not there yet."""
    run = session.run
    sheet = run.out / "views.jpg"
    with run.group.on_main() as main:
        if main:
            run_folder.list_problems(run.out, run.data.problems)
            if run.recipe.tune.kind != "probe" and not sheet.exists():  # a probe sees no views
                view = session.objective.views[0]
                sample_sheet.write(sheet, run.data.train, view, seed=run.recipe.seed)


def run_steps(session: Session, stop_requests: list[int]) -> None:
    """Steps, validations and saved states until the run is done."""
    progress = session.progress
    recipe = session.run.recipe
    group = session.run.group
    saved = time.monotonic()
    if session.validation_due:  # stopped between the step and its validation
        validation.validate(session)
        save_state(session)
    with contextlib.closing(steps_left(session)) as steps:
        while not session.finished:
            stops = False
            save_due = False
            if recipe.tune.kind == "probe":
                progress.step += 1
                record(session, progress.step, linear_probe.solve(session))
            else:
                due = time.monotonic() - saved >= recipe.save_seconds
                taken = step(session, next(steps), stop_requests=stop_requests, save_due=due)
                progress.step += 1
                session.unread.append(taken)
                stops = taken.stop_requested
                save_due = taken.save_due
                record_all_but(session, trailing.steps_behind(session.device))
            stops = stops or (group.world_size == 1 and bool(stop_requests))
            validates = session.validation_due and not stops
            if validates or stops or save_due or session.finished:
                record_all_but(session, 0)  # before a step that was not finite can reach the disk
            if validates:
                validation.validate(session)
            if validates or stops or save_due:
                save_state(session)
                saved = time.monotonic()
            if stops and (not session.finished or session.validation_due):
                raise Interrupted(
                    f"Stopped after step {progress.step} of {session.total}; the state is saved. "
                    f"Go on with: vitral train --resume {session.run.out}"
                )
    if recipe.patience is not None and progress.step < session.total:
        session.run.display.note(
            f"stopped early: {progress.validations_without_gain} validations without a better one "
            f"than at step {progress.best_step}"
        )
    group.barrier()


def record_all_but(session: Session, count: int) -> None:
    """Read and record the steps under way, without the newest `count`; raises Diverged."""
    while len(session.unread) > count:
        taken = session.unread.popleft()
        record(session, taken.number + 1, read(session, taken))


def record(session: Session, done: int, result: StepResult) -> None:
    """Show a step, the last of the `done` first, and write a line of metrics.jsonl now and then."""
    progress = session.progress
    if result.images:
        progress.loss_sum += result.loss
        progress.loss_count += 1
    if result.measures:
        for name, total in result.measures.items():
            progress.measures[name] = progress.measures.get(name, 0.0) + total
        progress.seen += result.images
    session.tick()
    session.run.display.step(
        done,
        session.total,
        result.images,
        loss=result.loss,
        lr=result.lr,
        measures={n: total / max(result.images, 1) for n, total in result.measures.items()},
    )
    if done % max(1, session.total // LOG_LINES) and done != session.total:
        return
    line: dict[str, object] = {
        "step": done,
        "epoch": session.epochs_of(done),
        "loss": progress.loss_sum / max(progress.loss_count, 1),
        "lr": result.lr,
        "seconds": round(progress.seconds, 2),
        "memory": session.run.display.memory,
    }
    if progress.seen:
        line |= {name: total / progress.seen for name, total in progress.measures.items()}
    if rate := session.run.display.images_per_second:
        line["images_per_second"] = round(rate, 2)
    progress.loss_sum = 0.0
    progress.loss_count = 0
    progress.measures = {}
    progress.seen = 0
    validation.log(session, line)


def save_state(session: Session) -> None:
    """One of the two resume slots."""
    tensors = state.gather(session.objective, session.ema, session.optimizer)
    state.save(session.run.out / "state", tensors, session.progress, session.run.group)
    session.run.display.pause()
