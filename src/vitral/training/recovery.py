"""Recovery: back to the saved state, to an earlier one, or to smaller parts of a step."""

from __future__ import annotations

import gc
from dataclasses import replace
from functools import partial

import torch

from vitral.errors import MachineError, ModelError, WeightsError
from vitral.training import run_folder, state
from vitral.training.display import Display
from vitral.training.new_classes import begin
from vitral.training.session import RunContext, Session
from vitral.training.step import Diverged
from vitral.weights import artifact

RETRIES = 3  # returns to the last saved state after a step that is not finite


def restore(run: RunContext, *, before: int | None = None) -> Session:
    """Return the session where its newest whole state left it, or at its start.

    With `before`, a state of that step or a later one is thrown away first. Raises ModelError
    where no state is left and the weights that the run began from are not at hand.
    """
    with run.group.on_main() as main:
        if main and before is not None:
            state.forget(run.out / "state", before)
    has_state = state.progress_of(run.out / "state") is not None
    # what the run started from is in its state
    session = _first_state(replace(run, weights=None) if has_state else _with_weights(run))
    like = partial(state.target, module=session.objective, ema=session.ema)
    saved = state.load(run.out / "state", like if run.sharded else None) if has_state else None
    if has_state and saved is None:
        run.display.note("no whole state is left: the run begins again")
        session = _first_state(_with_weights(run))
    session.run = run
    if saved:
        tensors, session.progress = saved
        state.scatter(tensors, session.objective, session.ema, session.optimizer)
        keep_or_choose_again(session)
    _keep_split(session)
    with run.group.on_main() as main:
        if main:
            run_folder.rewind(run.out, session.progress.step)
    return session


def _first_state(run: RunContext) -> Session:
    torch.manual_seed(run.recipe.seed)
    return begin(run)


def _with_weights(run: RunContext) -> RunContext:
    """The run itself; ModelError where the weights that it began from are not at hand."""
    if run.weights is None and run.recipe.start is not None:  # it resumed from a saved state
        raise ModelError(
            f"No state of {run.out} is left to go back to. Begin again from {run.recipe.start}: "
            f"vitral train --resume {run.out}"
        )
    return run


def keep_or_choose_again(session: Session) -> None:
    """If best/ is gone or damaged, let the next validation choose it again."""
    progress = session.progress
    try:
        if progress.best_step >= 0:
            artifact.load(session.run.out / "best")
    except WeightsError as error:
        session.run.display.note(f"{error} It is chosen again from here on.")
        progress.best_score = -1.0
        progress.best_step = -1
        progress.validated_step = -1
        progress.validations_without_gain = 0


def roll_back(session: Session, error: Diverged) -> Session:
    """Return the session at its last saved state with half the learning rate.

    Raises ModelError after the third time.
    """
    run = session.run
    lr = run.recipe.optimizer.lr
    retries = session.progress.retries + 1
    rate = session.progress.rate / 2
    if retries > RETRIES:
        raise ModelError(
            f"{error} The run returned {RETRIES} times with half the learning rate and diverged "
            f"again. Try --set optimizer.lr={lr * rate:.1g}, a longer --set schedule.warmup, or "
            f"--set precision=fp32, and look at the images of that batch."
        ) from None
    run.display.note(str(error))
    step = session.progress.step
    restored = restore(
        replace(run, display=Display(quiet=True)),  # it has introduced itself
        before=step if step == session.rolled_back_to else None,  # that state itself was bad
    )
    restored.run = run
    restored.rolled_back_to = restored.progress.step
    restored.progress.retries = retries
    restored.progress.rate = rate
    restored.failed = session.failed
    run.display.note(
        f"returned to step {restored.progress.step} with the learning rate at {rate:g} of the "
        f"recipe's ({retries} of {RETRIES} times)"
    )
    return restored


def split_further(session: Session) -> None:
    """Cut every step into twice as many parts: the same step in half the memory.

    Several processes cannot turn back in the middle of a step, where the others wait for this one:
    it asks for the parts in the run folder, and MachineError ends it, so that all start again.
    """
    session.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    if session.device.type == "cuda":
        torch.cuda.empty_cache()
    group = session.run.group
    each = session.micro_batch_size
    parts = min(2 * session.grad_accumulation, session.batch_size // group.world_size)
    if parts <= session.grad_accumulation:
        raise MachineError(
            f"The memory of {session.device} is too small for {each} images at a time. Choose "
            f"--set checkpointing=true, a smaller --size or model."
        ) from None
    if group.world_size > 1:
        run_folder.request_accumulation(session.run.out, parts)
        raise MachineError(
            f"The memory of {session.device} ended with {each} images at a time. All processes "
            f"start again with half as many (torchrun: where --max-restarts allows; by hand: "
            f"vitral train --resume {session.run.out})."
        ) from None
    session.progress.accumulate = parts
    _note_split(session)


def _keep_split(session: Session) -> None:
    """The parts that a process without memory asked for before all of them started again."""
    parts = session.run.group.broadcast(run_folder.requested_accumulation(session.run.out))
    if (
        parts > session.grad_accumulation
        and parts * session.run.group.world_size <= session.batch_size
    ):
        session.progress.accumulate = parts
        _note_split(session)


def _note_split(session: Session) -> None:
    count = session.run.group.world_size
    among = f" per process, {count} processes," if count > 1 else ""
    session.run.display.note(
        f"out of memory: each step now comes in {session.grad_accumulation} parts{among} of "
        f"{session.micro_batch_size} images or fewer; it remains a step of {session.batch_size}"
    )
