"""Validation: the scores of a run on its validation images, and the artifacts that come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vitral import evaluation as scores
from vitral.data.loader import Batch, eval_batches
from vitral.data.sources import Problem, Split
from vitral.errors import ModelError
from vitral.evaluation import Score, fit, foreign
from vitral.evaluation.fit import Fitted
from vitral.evaluation.foreign import Sample
from vitral.evaluation.mirror import mirrored_mistakes
from vitral.images import preprocess
from vitral.model import ViT
from vitral.report.record import mirrored_pairs
from vitral.training import before, finetuning, run_folder
from vitral.training.distributed import wrap
from vitral.training.distributed.process_group import full
from vitral.training.objectives.base import Observed
from vitral.training.run_folder import Run
from vitral.training.session import Session
from vitral.training.step import Diverged, report_unreadable
from vitral.weights import artifact
from vitral.weights.card import Card
from vitral.wording import clock


def validate(session: Session) -> None:
    """Score the validation images with the averaged weights; keep the best.

    Raises Diverged for weights that are finite and give numbers that are not.
    """
    progress = session.progress
    display = session.run.display
    objective = session.objective
    try:
        with session.ema.swapped_in(objective):
            observed = observe(session)
        evaluation = objective.score(observed)
    except ModelError as error:
        raise Diverged(f"Validation after step {progress.step}: {error}") from None
    progress.validated_step = progress.step
    session.tick()
    log(
        session,
        {
            "step": progress.step,
            "epoch": session.epoch,
            **{f"val_{name}": value for name, value in evaluation.measures.items()},
            "val_score": evaluation.score,
            "val_interval": list(evaluation.interval),
            "val_loss": evaluation.loss,
        },
    )
    display.evaluated(session.epoch, evaluation.score, evaluation.interval, evaluation.headline)
    if remark := objective.remark(evaluation):
        display.note(remark)
    last = session.run.recipe.select == "last" and progress.step == session.total
    progress.validations_without_gain += 1
    better = session.run.recipe.select == "best" and evaluation.score > progress.best_score
    if last or better:
        progress.best_score = evaluation.score
        progress.best_step = progress.step
        progress.validations_without_gain = 0
    # fitted where it is kept: many images of many classes take seconds
    fitted = Fitted()
    if last or better or session.finished:
        fitted = fit_to(session, observed)
    if last or better:
        save_artifact(session, "best", evaluation, fitted)
    if session.finished:
        evaluation = objective.score(observed, fitted)
        session.fitted = fitted
    session.evaluation = evaluation


def fit_to(session: Session, observed: Observed) -> Fitted:
    """Fit what travels in the artifact to validation images that were observed."""
    recipe = session.run.recipe
    chooses = recipe.select == "best" or recipe.patience is not None
    return session.objective.fit(observed, session.run.data.tree, fresh=not chooses)


def observe(session: Session, backbone: ViT | None = None) -> Observed:
    """Observe every validation image once, whatever the number of processes.

    `backbone` gives other weights of the same network, such as those of best/.
    """
    objective = session.objective
    split = session.run.data.val
    session.run.display.pause()
    objective.eval()

    compute = partial(objective.observe, backbone=backbone)
    values, labels, indices = outputs_of(session, split, compute)
    objective.train()
    wrap.reshard(objective)  # before the raw weights come back into the place of the averaged ones
    session.run.display.pause()
    return Observed(values, labels, [split.key(int(index)) for index in indices])


@torch.no_grad()
def outputs_of(
    session: Session, split: Split, compute: Callable[[Batch], Tensor]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what `compute` gives of every readable image of a split, from all processes.

    Returns values float32 (N, k), labels, and indices within the split, int64 (N,). Raises
    DataError when too many images cannot be read.
    """
    values: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    indices: list[np.ndarray] = []
    failed: list[Problem] = []
    for batch in watched(session, split):
        failed += batch.failed
        if len(batch.images):
            real = (batch.indices >= 0).numpy()  # without the padding images
            values.append(compute(batch).float().cpu().numpy()[real])
            labels.append(batch.labels.numpy()[real])
            indices.append(batch.indices.numpy()[real])
    report_unreadable(session, failed)
    gathered = session.run.group.all_gather((values, labels, indices))
    values, labels, indices = (
        [array for process in gathered for array in process[part]] for part in range(3)
    )
    return np.concatenate(values), np.concatenate(labels), np.concatenate(indices)


def watched(session: Session, split: Split) -> Iterator[Batch]:
    """This process's batches of evaluation views, each image of the split in one process.

    Where the network is sharded all processes run it equally often, so one that has none left
    looks at a black image, which counts nowhere.
    """
    size = session.eval_batch_size
    spec = session.run.recipe.images
    group = session.run.group
    batches = eval_batches(
        split, spec, batch=size, workers=session.workers, rank=group.rank, world=group.world_size
    )
    longest = -(-len(split) // group.world_size)  # the most images of one process
    runs = -(-longest // size)
    done = 0
    for _ in range(runs):
        batch = next(batches, None)
        if session.run.sharded and (batch is None or not len(batch.images)):
            batch = _nothing(batch, session)
        if batch is None:
            return
        yield batch
        done += len(batch.images)
        session.run.display.evaluating(done * group.world_size, len(split))


def _nothing(batch: Batch | None, session: Session) -> Batch:
    shape = (1, 3, *session.run.recipe.images.size)
    labels = torch.from_numpy(session.run.data.val.labels[:1])
    nothing = Batch((torch.zeros(shape, dtype=torch.uint8),), labels, torch.tensor([-1]))
    return nothing if batch is None else replace(nothing, failed=batch.failed)


def finish(session: Session) -> Run:
    """Write last/, predictions.csv and evaluation.json of best/, and the report."""
    progress = session.progress
    objective = session.objective
    out = session.run.out
    best = session.evaluation
    if best is None:  # resumed after the last step
        with session.ema.swapped_in(objective):
            observed = observe(session)
        session.fitted = fit_to(session, observed)
        best = objective.score(observed, session.fitted)
    assert session.fitted is not None  # wherever there is an evaluation
    save_artifact(session, "last", best, session.fitted)
    model, card = artifact.load(out / "best")
    model = model.to(session.device)
    if progress.best_step != progress.step:
        fitted = Fitted.read(card, artifact.load_fitted(out / "best"))
        best = objective.score(observe(session, model), fitted)
    changes = before.changes(session, best)
    if session.run.recipe.labelled:
        fit_foreign(session, model, card)
    with session.run.group.on_main() as main:
        if main:
            if best.predictions:
                scores.write_predictions(out / "predictions.csv", best)
            scores.write_evaluation(out / "evaluation.json", best, changes)
            run_folder.write_report(out, session.run.data, best, model, session.run.recipe.images)
    if changes is not None:
        session.run.display.note(f"before {changes.line()}")
    single = best.predictions if not session.run.data.multi_label else ()
    if remark := mirrored_mistakes(single, mirrored_pairs(out)):
        session.run.display.note(f"flips  {remark}")
    low, high = (100 * bound for bound in best.interval)
    session.run.display.note(
        f"done in {clock(progress.seconds)}: {best.headline} {100 * best.score:.2f} % "
        f"({low:.1f}-{high:.1f}) on {best.samples} {session.run.data.val.name} images"
    )
    return Run(out, best)


def fit_foreign(session: Session, model: ViT, card: Card) -> None:
    """Fit what tells foreign images to the features of best/, and of last/ where that is the same.

    Looks at no more than `foreign.MOST_IMAGES` training images and as many validation images, all
    of them once.
    """
    run = session.run
    kind = card.task.kind
    session.run.display.pause()
    learnt = sample_of(session, run.data.train, model, by_class=True)
    held_out = sample_of(session, run.data.val, model, by_class=False)
    arrays = artifact.load_fitted(run.out / "best")
    fitted = Fitted.read(card, arrays)
    fitted = fit.with_foreign(fitted, kind, learnt, held_out)
    card = replace(card, made_by={**card.made_by, "fitted": fitted.to_dict()})
    same = session.progress.best_step == session.progress.step
    with run.group.on_main() as main:
        for name in ("best", "last") if same else ("best",):
            if main:
                artifact.save_fitted(run.out / name, card, fitted.arrays())
    if fitted.foreign is not None:
        run.display.note(f"foreign images are told {fitted.foreign.summary}")


def sample_of(session: Session, split: Split, model: ViT, *, by_class: bool) -> Sample:
    """Compute logits and features of some images of a split; see `foreign.chosen_rows`."""

    def compute(batch: Batch) -> Tensor:
        images = preprocess.normalise(batch.images.to(session.device), session.run.recipe.images)
        with session.objective.autocast():
            logits, detector_features = model.logits_and_detector_features(images)
        return torch.cat([logits.float(), detector_features], dim=1)

    chosen = split.select(foreign.chosen_rows(split.labels, by_class=by_class))
    values, labels, _ = outputs_of(session, chosen, compute)
    return Sample.of(values, labels, model.spec)


def save_artifact(
    session: Session,
    name: str,
    evaluation: Score,
    fitted: Fitted,
) -> None:
    """The averaged weights with everything that another verb needs."""
    with session.ema.swapped_in(session.objective):
        tensors = finetuning.merged(
            {name: full(x) for name, x in session.backbone.state_dict().items()}
        )
        card = run_folder.card(session.run.recipe, session.run.data, session.progress, evaluation)
        card = replace(card, calibration=fitted.calibration, tree=fitted.tree)
        with session.run.group.on_main() as main:
            if main:
                artifact.save(session.run.out / name, tensors, card, fitted=fitted.arrays())


def log(session: Session, line: dict[str, object]) -> None:
    """One line of metrics.jsonl, and to whoever else was asked to keep it."""
    with session.run.group.on_main() as main:
        if main:
            run_folder.log(session.run.out, line)
            session.run.loggers.log(line)
