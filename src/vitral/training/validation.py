"""How the run does on its validation images, and the artifacts that come of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from vitral import evaluation as scores
from vitral.data.loader import Batch, eval_batches
from vitral.data.sources import Split
from vitral.engines.torch_engine import Engine, Outputs
from vitral.errors import ModelError
from vitral.evaluation import Evaluation, MultiLabelEvaluation
from vitral.evaluation.calibration import fit
from vitral.specs import Calibration
from vitral.training import finetuning, run_folder
from vitral.training.distributed.process_group import whole
from vitral.training.run_folder import Run
from vitral.training.session import Session
from vitral.training.step import Diverged, report_unreadable
from vitral.weights import artifact
from vitral.wording import clock


@dataclass(frozen=True, slots=True)
class Seen:
    """What some weights say of all validation images.

    Attributes:
        logits: (N, classes); labels: (N,), or (N, classes) for multi-label.
        keys: N names; classes: theirs, in the order of the logits.
    """

    logits: np.ndarray
    labels: np.ndarray
    keys: list[str]
    classes: tuple[str, ...]

    def calibration(self) -> Calibration | None:
        """Fitted on these images; multi-label models have none."""
        return fit(self.logits, self.labels) if self.labels.ndim == 1 else None

    def judged(self, calibration: Calibration | None = None) -> Evaluation | MultiLabelEvaluation:
        """Scores; `calibration` is one that was fitted on these images."""
        if self.labels.ndim > 1:
            return scores.evaluate_multi_label(self.logits, self.labels, self.classes, self.keys)
        return scores.evaluate(
            self.logits, self.labels, self.classes, self.keys, calibration=calibration, own=True
        )


def validate(session: Session) -> None:
    """Count the validation images with the averaged weights; keep the best.

    Raises Diverged for weights that are finite and give numbers that are not.
    """
    progress, display = session.progress, session.display
    try:
        with session.average.applied(session.model):
            seen = look(session, session.model)
        evaluation = seen.judged()
    except ModelError as error:
        raise Diverged(f"Validation after step {progress.step}: {error}") from None
    progress.validated_step = progress.step
    session.tick()
    log(
        session,
        {
            "step": progress.step,
            "epoch": session.epoch,
            "val_accuracy": evaluation.accuracy,
            "val_score": evaluation.score,
            "val_interval": list(evaluation.interval),
            "val_loss": evaluation.loss,
        },
    )
    display.evaluated(session.epoch, evaluation.score, evaluation.interval, evaluation.headline)
    last = session.recipe.select == "last" and progress.step == session.total
    progress.waited += 1
    better = session.recipe.select == "best" and evaluation.score > progress.best_score
    if last or better:
        progress.best_score, progress.best_step = evaluation.score, progress.step
        progress.waited = 0
    # fitted where it is kept: many images of many classes take seconds
    calibration = seen.calibration() if last or better or session.done else None
    if last or better:
        save_artifact(session, "best", evaluation, calibration)
    session.evaluation = seen.judged(calibration) if session.done else evaluation


def look(session: Session, model: nn.Module) -> Seen:
    """Every validation image once, whatever the number of processes, by the one engine."""
    display, split, recipe = session.display, session.data.val, session.recipe
    display.pause()
    engine = Engine(model, recipe.images, session.device, recipe.precision)
    outputs = engine.run(watched(session, split))
    display.pause()
    report_unreadable(session, list(outputs.failed))
    parts = [_own(found) for found in session.ranks.gathered(outputs)]
    kinds = len(session.data.classes)
    logits = np.concatenate([part.logits.reshape(-1, kinds) for part in parts])
    labels = np.concatenate(
        [part.labels for part in parts if len(part.labels)] or [parts[0].labels]
    )
    keys = [split.key(int(i)) for part in parts for i in part.indices]
    return Seen(logits, labels, keys, session.data.classes)


def watched(session: Session, split: Split) -> Iterator[Batch]:
    """This process's batches of evaluation views, each image of the split in one process.

    Where the network is sharded all processes run it equally often, so one that has none left
    looks at a black image, which counts nowhere.
    """
    size, spec, ranks = session.seen_at_once, session.recipe.images, session.ranks
    batches = eval_batches(
        split, spec, batch=size, workers=session.workers, rank=ranks.index, world=ranks.count
    )
    longest = -(-len(split) // ranks.count)  # the most images of one process
    runs, done = -(-longest // size), 0
    for _ in range(runs):
        batch = next(batches, None)
        if session.sharded and (batch is None or not len(batch.images)):
            batch = _nothing(batch, session)
        if batch is None:
            return
        yield batch
        done += len(batch.images)
        session.display.evaluating(done * ranks.count, len(split))


def _nothing(batch: Batch | None, session: Session) -> Batch:
    shape = (1, 3, *session.recipe.images.size)
    labels = torch.from_numpy(session.data.val.labels[:1])
    nothing = Batch((torch.zeros(shape, dtype=torch.uint8),), labels, torch.tensor([-1]))
    return nothing if batch is None else replace(nothing, failed=batch.failed)


def _own(outputs: Outputs) -> Outputs:
    """Without the images that were there to keep others company."""
    kept = outputs.indices >= 0
    if kept.all():
        return outputs
    return replace(
        outputs,
        logits=outputs.logits[kept],
        labels=outputs.labels[kept],
        indices=outputs.indices[kept],
    )


def finish(session: Session) -> Run:
    """Write last/, predictions.csv and evaluation.json of best/, and the report."""
    progress, best, out = session.progress, session.evaluation, session.out
    if best is None:  # resumed after the last step
        with session.average.applied(session.model):
            seen = look(session, session.model)
        best = seen.judged(seen.calibration())
    fitted = best.reliability.calibration if isinstance(best, Evaluation) else None
    save_artifact(session, "last", best, fitted)
    model, card = artifact.load(out / "best")
    if progress.best_step != progress.step:
        best = look(session, model.to(session.device)).judged(card.calibration)
    with session.ranks.writing() as first:
        if first:
            scores.write_predictions(out / "predictions.csv", best)
            scores.write_evaluation(out / "evaluation.json", best)
            run_folder.write_report(out, session.data, best, model, session.recipe.images)
    low, high = (100 * bound for bound in best.interval)
    session.display.note(
        f"done in {clock(progress.seconds)}: {best.headline} {100 * best.score:.2f} % "
        f"({low:.1f}-{high:.1f}) on {best.samples} {session.data.val.name} images"
    )
    return Run(out, best)


def save_artifact(
    session: Session,
    name: str,
    evaluation: Evaluation | MultiLabelEvaluation,
    calibration: Calibration | None,
) -> None:
    """The averaged weights with everything that another verb needs."""
    with session.average.applied(session.model):
        tensors = finetuning.merged(
            {name: whole(x) for name, x in session.model.state_dict().items()}
        )
        card = run_folder.card(session.recipe, session.data, session.progress, evaluation)
        card = replace(card, calibration=calibration)
        with session.ranks.writing() as first:
            if first:
                artifact.save(session.out / name, tensors, card)


def log(session: Session, line: dict[str, object]) -> None:
    """One line of metrics.jsonl, and to whoever else was asked to keep it."""
    with session.ranks.writing() as first:
        if first:
            run_folder.log(session.out, line)
            session.loggers.log(line)
