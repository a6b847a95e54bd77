"""The answers of the network that a run began from, on the run's own held-out images.

They are written before the first step, so that a resume needs neither that network nor its time:

before.json     {"weights": ..., "classes": [...], "answers": {image: [class, ...]}}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from vitral.data.loader import eval_batches
from vitral.engines.torch_engine import TorchEngine
from vitral.errors import DataError
from vitral.evaluation import Score
from vitral.evaluation.changes import Changes, compare_classes
from vitral.evaluation.outputs import compute_outputs
from vitral.storage import files
from vitral.training.session import Session
from vitral.weights import artifact
from vitral.weights.card import Card
from vitral.weights.known_classes import KnownClasses

FILE = "before.json"


def write(session: Session) -> None:
    """Write the old network's answers, where it knows a class of the images and they are not there.

    A network that reads no RGB images is not asked.
    """
    run = session.run
    if run.weights is None or not run.recipe.labelled:
        return
    card = run.weights.card
    known = KnownClasses.of(run.weights, run.data.classes)
    if not known.kept or card.model.channels != 3:
        return
    there = run.group.broadcast((run.out / FILE).exists())
    if there:
        return
    answers = [
        pair for part in run.group.all_gather(list(_answers(session, card))) for pair in part
    ]
    content = {"weights": run.recipe.start, "classes": list(card.classes), "answers": dict(answers)}
    with run.group.on_main() as main:
        if main:
            files.write_json(run.out / FILE, content)


def _answers(session: Session, card: Card) -> Iterator[tuple[str, list[str]]]:
    """Each held-out image of this process's share and the classes that the old network gives it."""
    run = session.run
    assert run.weights is not None
    split = run.data.val
    model = artifact.network(run.weights.tensors, card.model).to(session.device)
    engine = TorchEngine(model, session.device, run.recipe.precision)
    batches = eval_batches(
        split,
        card.images,
        batch=session.eval_batch_size,
        workers=session.workers,
        rank=run.group.rank,
        world=run.group.world_size,
    )
    outputs = compute_outputs(engine.logits, batches, card.images, session.device)
    for index, logits in zip(outputs.indices, outputs.values, strict=True):
        best = np.flatnonzero(logits >= 0) if card.task.multi_label else [logits.argmax()]
        yield split.key(int(index)), [card.classes[int(k)] for k in best]


def changes(session: Session, evaluation: Score) -> Changes | None:
    """Compare the run's answers with those before it, class by class; None without such answers."""
    path = session.run.out / FILE
    if not path.exists() or not evaluation.predictions:
        return None
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        answers = {str(key): tuple(names) for key, names in content["answers"].items()}
        old = tuple(map(str, content["classes"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}). Remove it: the run then ends without the comparison "
            f"with the network that it began from."
        ) from None
    return compare_classes(evaluation.predictions, answers, session.run.data.classes, old)
