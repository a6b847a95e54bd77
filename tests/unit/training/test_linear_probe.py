from pathlib import Path

import numpy as np
import torch

from drawn import draw_folder
from vitral import load, train
from vitral.data.loader import eval_batches
from vitral.images.preprocess import normalise


def test_a_probe_moves_the_head_alone_and_is_the_logistic_regression(tmp_path: Path) -> None:
    photos = draw_folder(tmp_path / "photos", kinds=3, each=20)
    small = {"model": "mu/8", "size": 32, "changes": ["data.workers=0"]}
    begun = train(photos, epochs=1, out=tmp_path / "first", **small)
    run = train(
        photos,
        start=begun.path,
        recipe="probe",
        out=tmp_path / "probe",
        changes=["data.workers=0", "precision=fp32"],
    )
    before, after = load(begun.path).model.state_dict(), load(run.path).model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias"}
    classifier = load(run.path, precision="fp32")
    split = classifier.eval_set(photos).split
    answers = classifier.evaluate(split)
    assert answers.accuracy == run.evaluation.accuracy
    assert answers.samples == len(split) == 12
    batch = next(iter(eval_batches(split, classifier.card.images, batch=12, workers=0)))
    with torch.no_grad():
        features = classifier.model.representation(normalise(batch.images, classifier.card.images))
        expected = features @ after["head.weight"].T + after["head.bias"]
        logits = classifier.logits(normalise(batch.images, classifier.card.images))
    np.testing.assert_allclose(logits.numpy(), expected.numpy(), atol=1e-5)
