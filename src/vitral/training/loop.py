"""The one training loop.

train(recipe, Path("run"))      a new run folder
resume(Path("run"))             goes on with the very next step; on a CPU the final weights are
                                bit-equal to those of a run that was never interrupted
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitral import evaluation as scores
from vitral.errors import DataError, Interrupted, ModelError, VitralError, WeightsError
from vitral.images import augment, preprocess
from vitral.images.complaints import refuse_many_unreadable
from vitral.images.loading import Batch, eval_batches, seed_of, train_batches
from vitral.inference import Engine, autocast, best_device
from vitral.training import folder, objective, state
from vitral.training.display import Display, clock
from vitral.training.folder import Run
from vitral.training.interrupts import interrupts
from vitral.training.optimizer import schedule
from vitral.training.recipe import Recipe
from vitral.training.session import Session, open_data, start
from vitral.weights import artifact

LOG_LINES = 400  # lines of metrics.jsonl that a whole run writes, whatever its length


def train(
    recipe: Recipe, out: Path, *, device: str | None = None, display: Display | None = None
) -> Run:
    """Train `recipe` from its first step into a new run folder.

    Raises UsageError for an `out` that exists or lies inside the data, DataError for unusable data,
    MachineError for a folder or device that cannot be used, ModelError when training diverges, and
    Interrupted after Ctrl-C, with the state saved.
    """
    display = display or Display()
    chosen = best_device(device)
    folder.check_new(out, recipe.data.source)
    data = open_data(recipe)
    recipe = folder.complete(recipe, data)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        session = start(recipe, data, out, chosen, display)
        folder.create(out, recipe, data)
        with folder.locked(out):  # outside the try: another process's folder is not ours to discard
            try:
                return fit(session)
            except (VitralError, RuntimeError):
                folder.discard(out)
                raise


def resume(out: Path, *, device: str | None = None, display: Display | None = None) -> Run:
    """Go on with the run in `out` from its newest whole state (or from the start, if none).

    Raises UsageError when `out` is no run, DataError when the data changed since it began.
    """
    display = display or Display()
    recipe, fingerprint = folder.read(out)
    data = open_data(recipe)
    if data.fingerprint != fingerprint:
        raise DataError(
            f"The images in {recipe.data.source} changed since {out} began, so it cannot go on "
            f"exactly. Put the old files back, or start a new run."
        )
    with torch.random.fork_rng(), folder.locked(out):
        torch.manual_seed(recipe.seed)
        for slot in state.damaged(out / "state"):
            display.note(f"passed over: state/{slot} is not whole")
        saved = state.load(out / "state")
        begun = replace(recipe, start=None) if saved else recipe  # what it started from is in there
        session = start(begun, data, out, best_device(device), display)
        session.recipe = recipe
        if saved:
            tensors, session.progress = saved
            state.scatter(tensors, session.model, session.average.model, session.optimizer)
            keep_or_choose_again(session)
        folder.rewind(out, session.progress.step)
        display.note(f"resuming {out} at step {session.progress.step} of {session.total}")
        return fit(session)


def keep_or_choose_again(session: Session) -> None:
    """If best/ is gone or damaged, let the next validation choose it again."""
    try:
        if session.progress.best_step >= 0:
            artifact.load(session.out / "best")
    except WeightsError as error:
        session.display.note(f"{error} It is chosen again from here on.")
        session.progress.best_accuracy, session.progress.best_step = -1.0, -1
        session.progress.validated_step = -1


def fit(session: Session) -> Run:
    """All remaining steps, then the artifacts, predictions.csv and report.html."""
    progress, recipe, total = session.progress, session.recipe, session.total
    log_every = max(1, total // LOG_LINES)
    batches = train_batches(
        session.data.train,
        recipe.augment,
        recipe.images,
        batch=recipe.data.batch,
        seed=recipe.seed,
        start_step=progress.step,
        workers=session.workers,
    )
    saved = time.monotonic()
    with session.display, contextlib.closing(batches), interrupts() as asked:
        if session.owes_validation:  # stopped between the step and its validation
            validate(session)
        while progress.step < total:
            advance(session, next(batches), log_every)
            validates = session.owes_validation and not asked
            if validates:
                validate(session)
            if validates or asked or time.monotonic() - saved >= recipe.save_seconds:
                save_state(session)
                saved = time.monotonic()
            if asked and (progress.step < total or session.owes_validation):
                raise Interrupted(
                    f"Stopped after step {progress.step} of {total}; the state is saved. "
                    f"Go on with: vitral train --resume {session.out}"
                )
        return finish(session)


def advance(session: Session, batch: Batch, log_every: int) -> None:
    """One batch: a step, unless none of its images could be read, and a line of the record."""
    progress = session.progress
    for problem in batch.failed:
        session.display.note(f"left out: {problem.path}: {problem.reason}")
        session.failed[problem.path] = problem
    if batch.failed:  # of a split that came as it is, nothing was decoded before
        refuse_many_unreadable(
            list(session.failed.values()),
            len(session.data.train) - len(session.failed),
            session.data.source,
            session.recipe.data.allow_unreadable,
        )
    if len(batch.images):
        progress.loss_sum += step(session, batch)
        progress.loss_count += 1
    progress.step += 1
    session.tick()
    if progress.step % log_every == 0 or progress.step == session.total:
        log_step(session)


def step(session: Session, batch: Batch) -> float:
    """One optimizer step on one batch; returns its loss.

    Nothing is applied when the loss or a gradient is not finite: ModelError says where it began.
    """
    recipe, model, number = session.recipe, session.model, session.progress.step
    seed = seed_of(recipe.seed, "step", number)
    torch.manual_seed(seed)
    images = preprocess.normalise(batch.images.to(session.device, non_blocking=True), recipe.images)
    labels = batch.labels.to(session.device, non_blocking=True)
    if recipe.augment.mixes:
        classes = len(session.data.classes)
        images, labels = augment.mix(images, labels, classes, recipe.augment, seed)
    warmup = recipe.warmup.in_steps(session.epoch_steps)
    rate = recipe.optimizer.lr * schedule(number, session.total, warmup)
    for group in session.optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    with autocast(recipe.precision, session.device):
        logits = model(images)
    loss = objective.cross_entropy(logits, labels, recipe.label_smoothing)
    loss.backward()
    limit = recipe.optimizer.clip or float("inf")
    norm = nn.utils.clip_grad_norm_(model.parameters(), limit)
    if not bool(torch.isfinite(loss + norm)):
        raise diverged(session, batch, loss.item())
    session.optimizer.step()
    session.optimizer.zero_grad(set_to_none=True)
    session.average.update(model, number)
    value = loss.item()
    session.display.step(number + 1, session.total, len(batch.images), loss=value, lr=rate)
    return value


def diverged(session: Session, batch: Batch, loss: float) -> ModelError:
    """The error for a loss or gradient that is not finite, with the first tensor that shows it."""
    bad = "the loss itself"
    for name, parameter in session.model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            bad = f"weight '{name}'"
            break
        if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
            bad = f"gradient of '{name}'"
            break
    keys = ", ".join(session.data.train.key(int(i)) for i in batch.indices[:3])
    lr = session.optimizer.param_groups[0]["lr"]
    return ModelError(
        f"Training diverged at step {session.progress.step}: loss {loss:g}, first bad tensor: "
        f"{bad}, learning rate {lr:.2g}, batch of {len(batch.indices)} beginning with {keys}. "
        f"The step was not applied. Try a smaller rate, --set optimizer.lr="
        f"{session.recipe.optimizer.lr / 3:.1g}, or --set precision=fp32."
    )


def validate(session: Session) -> scores.Evaluation:
    """Count the validation images with the averaged weights; keep the best."""
    progress, display = session.progress, session.display
    evaluation = evaluate_model(session, session.average.model)
    session.evaluation, progress.validated_step = evaluation, progress.step
    session.tick()
    folder.log(
        session.out,
        {
            "step": progress.step,
            "epoch": session.epoch,
            "val_accuracy": evaluation.accuracy,
            "val_interval": list(evaluation.interval),
            "val_loss": evaluation.loss,
        },
    )
    display.evaluated(session.epoch, evaluation.accuracy, evaluation.interval)
    last = session.recipe.select == "last" and progress.step == session.total
    if last or (session.recipe.select == "best" and evaluation.accuracy > progress.best_accuracy):
        progress.best_accuracy, progress.best_step = evaluation.accuracy, progress.step
        save_artifact(session, "best", evaluation)
    return evaluation


def evaluate_model(session: Session, model: nn.Module) -> scores.Evaluation:
    """Every validation image once, through the same engine that `vitral evaluate` uses."""
    display, split, recipe = session.display, session.data.val, session.recipe
    display.pause()
    engine = Engine(model, recipe.images, session.device, recipe.precision)
    batches = eval_batches(
        split, recipe.images, batch=max(64, recipe.data.batch), workers=session.workers
    )

    def watched() -> Iterator[Batch]:
        done = 0
        for batch in batches:
            yield batch
            done += len(batch.images)
            display.evaluating(done, len(split))

    outputs = engine.run(watched())
    display.pause()
    keys = [split.key(int(i)) for i in outputs.indices]
    return scores.evaluate(outputs.logits, outputs.labels, session.data.classes, keys)


def finish(session: Session) -> Run:
    """Write last/, predictions.csv of best/, and the report."""
    progress, best = session.progress, session.evaluation
    if best is None:  # resumed after the last step
        best = evaluate_model(session, session.average.model)
    save_artifact(session, "last", best)
    model, _ = artifact.load(session.out / "best")
    if progress.best_step != progress.step:
        best = evaluate_model(session, model.to(session.device))
    scores.write_predictions(session.out / "predictions.csv", best)
    folder.write_report(session.out, session.data, best, model, session.recipe.images)
    low, high = (100 * bound for bound in best.interval)
    session.display.note(
        f"done in {clock(progress.seconds)}: {100 * best.accuracy:.2f} % "
        f"({low:.1f}-{high:.1f}) of {best.samples} {session.data.val.name} images are right"
    )
    return Run(session.out, best)


def save_artifact(session: Session, name: str, evaluation: scores.Evaluation) -> None:
    """The averaged weights with everything that another verb needs."""
    card = folder.card(session.recipe, session.data, session.progress, evaluation)
    artifact.save(session.out / name, session.average.model.state_dict(), card)


def save_state(session: Session) -> None:
    """One of the two resume slots."""
    tensors = state.gather(session.model, session.average.model, session.optimizer)
    state.save(session.out / "state", tensors, session.progress)
    session.display.pause()


def log_step(session: Session) -> None:
    """One line of metrics.jsonl with the mean loss since the last one."""
    progress = session.progress
    line: dict[str, Any] = {
        "step": progress.step,
        "epoch": session.epoch,
        "loss": progress.loss_sum / max(progress.loss_count, 1),
        "lr": session.optimizer.param_groups[0]["lr"],
        "seconds": round(progress.seconds, 2),
    }
    if rate := session.display.images_per_second:
        line["images_per_second"] = round(rate, 2)
    progress.loss_sum, progress.loss_count = 0.0, 0
    folder.log(session.out, line)
