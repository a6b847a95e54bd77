"""How a run comes back: to its saved state, to an earlier one, or to smaller parts of a step."""

from __future__ import annotations

import gc
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from vitral.data.datasets import Dataset
from vitral.errors import MachineError, ModelError, WeightsError
from vitral.training import run_folder, state
from vitral.training.display import Display
from vitral.training.distributed.process_group import Ranks
from vitral.training.loggers import Loggers
from vitral.training.recipe import Recipe
from vitral.training.session import Session, start
from vitral.training.step import Diverged
from vitral.weights import artifact
from vitral.weights.read import Weights

RETRIES = 3  # returns to the last saved state after a step that is not finite


def begin(  # noqa: PLR0913 - each has a name at every call
    recipe: Recipe,
    data: Dataset,
    weights: Weights | None,
    out: Path,
    ranks: Ranks,
    display: Display,
    loggers: Loggers,
    *,
    shard: bool,
    before: int | None = None,
) -> Session:
    """The session where its newest whole state left it, or at its start.

    `weights` are those that the run began from, for where it has to begin again. With `before`, a
    state of that step or a later one is thrown away first.
    """

    def first_state(of: Recipe, from_: Weights | None) -> Session:
        torch.manual_seed(recipe.seed)
        return start(of, data, from_, out, ranks, display, loggers=loggers, shard=shard)

    with ranks.writing() as first:
        if first and before is not None:
            state.forget(out / "state", before)
    there = state.progress_of(out / "state") is not None
    if there:  # what it started from is in there
        session = first_state(replace(recipe, start=None), None)
    else:
        session = first_state(recipe, _first_weights(recipe, weights, out))
    like = partial(state.target, module=session.objective, ema=session.ema)
    saved = state.load(out / "state", like if session.sharded else None) if there else None
    if there and saved is None:
        display.note("no whole state is left: the run begins again")
        session = first_state(recipe, _first_weights(recipe, weights, out))
    session.recipe, session.weights = recipe, weights
    if saved:
        tensors, session.progress = saved
        state.scatter(tensors, session.objective, session.ema, session.optimizer)
        keep_or_choose_again(session)
    _keep_parts(session)
    with ranks.writing() as first:
        if first:
            run_folder.rewind(out, session.progress.step)
    return session


def _first_weights(recipe: Recipe, weights: Weights | None, out: Path) -> Weights | None:
    """Those that the run began from; ModelError where they are not at hand."""
    if weights is None and recipe.start is not None:  # this sitting began from a saved state
        raise ModelError(
            f"No state of {out} is left to go back to. Begin again from {recipe.start}: "
            f"vitral train --resume {out}"
        )
    return weights


def keep_or_choose_again(session: Session) -> None:
    """If best/ is gone or damaged, let the next validation choose it again."""
    progress = session.progress
    try:
        if progress.best_step >= 0:
            artifact.load(session.out / "best")
    except WeightsError as error:
        session.display.note(f"{error} It is chosen again from here on.")
        progress.best_score, progress.best_step = -1.0, -1
        progress.validated_step, progress.waited = -1, 0


def returned(session: Session, error: Diverged) -> Session:
    """The session at its last saved state with half the rate; ModelError after the third time."""
    lr = session.recipe.optimizer.lr
    retries, rate = session.progress.retries + 1, session.progress.rate / 2
    if retries > RETRIES:
        raise ModelError(
            f"{error} The run returned {RETRIES} times with half the learning rate and diverged "
            f"again. Try --set optimizer.lr={lr * rate:.1g}, a longer --set schedule.warmup, or "
            f"--set precision=fp32, and look at the images of that batch."
        ) from None
    session.display.note(str(error))
    before, step = session, session.progress.step
    session = begin(
        before.recipe,
        before.data,
        before.weights,
        before.out,
        before.ranks,
        Display(quiet=True),  # it has introduced itself
        before.loggers,
        shard=before.sharded,
        before=step if step == before.returned_to else None,  # that state itself was bad
    )
    session.returned_to = session.progress.step
    session.display = before.display
    session.progress.retries, session.progress.rate = retries, rate
    session.failed = before.failed
    session.display.note(
        f"returned to step {session.progress.step} with the learning rate at {rate:g} of the "
        f"recipe's ({retries} of {RETRIES} times)"
    )
    return session


def smaller_parts(session: Session) -> None:
    """Cut every step into twice as many parts: the same step in half the memory.

    Several processes cannot turn back in the middle of a step, where the others wait for this one:
    it asks for the parts in the run folder, and MachineError ends it, so that all start again.
    """
    session.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    if session.device.type == "cuda":
        torch.cuda.empty_cache()
    ranks, each = session.ranks, session.part_images
    parts = min(2 * session.parts, session.step_images // ranks.count)
    if parts <= session.parts:
        raise MachineError(
            f"The memory of {session.device} is too small for {each} images at a time. Choose "
            f"--set checkpointing=true, a smaller --size or model."
        ) from None
    if ranks.count > 1:
        run_folder.ask_for_parts(session.out, parts)
        raise MachineError(
            f"The memory of {session.device} ended with {each} images at a time. All processes "
            f"start again with half as many (torchrun: where --max-restarts allows; by hand: "
            f"vitral train --resume {session.out})."
        ) from None
    session.progress.accumulate = parts
    _tell_parts(session)


def _keep_parts(session: Session) -> None:
    """The parts that a process without memory asked for before all of them started again."""
    parts = session.ranks.of_first(run_folder.asked_parts(session.out))
    if parts > session.parts and parts * session.ranks.count <= session.step_images:
        session.progress.accumulate = parts
        _tell_parts(session)


def _tell_parts(session: Session) -> None:
    count = session.ranks.count
    session.display.note(
        f"out of memory: each step now comes in {session.parts} parts"
        + f" per process, {count} processes," * (count > 1)
        + f" of {session.part_images} images or fewer; it remains a step of {session.step_images}"
    )
