import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax

from contexts import context
from drawn import draw_folder, spoil
from planned import resolve
from vitral.data.loader import Batch
from vitral.engines.torch_engine import TorchEngine
from vitral.errors import DataError
from vitral.evaluation import SingleLabelEvaluation, read_predictions
from vitral.evaluation.calibration import fit
from vitral.evaluation.outputs import Outputs, compute_outputs
from vitral.planning.plan import open_data
from vitral.planning.request import Request
from vitral.training import run_folder, validation
from vitral.training.display import Display
from vitral.training.distributed.process_group import ProcessGroup
from vitral.training.session import Session, begin_run
from vitral.weights import artifact


def begin(tmp_path: Path) -> Session:
    photos = draw_folder(tmp_path / "photos", kinds=3, each=45)
    recipe = resolve(
        Request(data=str(photos), model="mu/8", size=32, batch=8, changes=["data.workers=0"])
    )
    data = open_data(recipe.data, recipe.images.size)
    recipe = run_folder.with_data(recipe, data)
    torch.manual_seed(0)
    session = begin_run(context(recipe, data, tmp_path, Display(quiet=True)))
    torch.nn.init.normal_(session.backbone.get_parameter("head.weight"))
    return session


def test_processes_share_the_images_and_count_each_once(tmp_path: Path) -> None:
    """As many forward passes in each, which sharding needs; together what one process finds."""
    session = begin(tmp_path)
    count = len(session.run.data.val)
    assert count == 27
    engine = TorchEngine(session.backbone, session.device)
    images = session.run.recipe.images

    def seen(batches: Iterable[Batch]) -> Outputs:
        return compute_outputs(engine.logits, batches, images, engine.device)

    session.progress.accumulate = 2
    assert session.eval_batch_size == 4
    alone = seen(validation.watched(session, session.run.data.val))
    for world in (2, 4):
        outputs, runs = [], []
        for index in range(world):
            group = ProcessGroup(torch.device("cpu"), index, world)
            run = replace(session.run, group=group, sharded=True)
            other = replace(session, run=run)
            batches = list(validation.watched(other, run.data.val))
            assert all(len(batch.images) for batch in batches)
            runs.append(len(batches))
            outputs.append(seen(batches))
        assert len(set(runs)) == 1
        indices = np.concatenate([part.indices for part in outputs])
        own = indices >= 0  # without what keeps other processes company
        indices = indices[own]
        assert sorted(indices.tolist()) == list(range(count))
        logits = np.concatenate([part.values for part in outputs])[own]
        np.testing.assert_allclose(logits, alone.values, rtol=1e-6, atol=1e-6)  # last bits


def test_what_is_kept_is_calibrated_on_the_validation_images(tmp_path: Path) -> None:
    session = begin(tmp_path)
    torch.nn.init.normal_(session.ema.tensors["backbone.head.weight"])
    session.progress.step = 2  # as after a step that is not the last
    session.progress.best_score = 2.0  # nor the best
    validation.validate(session)
    assert isinstance(session.evaluation, SingleLabelEvaluation)
    assert session.evaluation.reliability.calibration is None  # nobody keeps it
    assert not (tmp_path / "best").exists()

    session.progress.best_score = -1.0
    session.progress.step = session.total
    validation.validate(session)
    card = artifact.load_card(tmp_path / "best")
    with session.ema.swapped_in(session.objective):
        seen = validation.observe(session)
    assert card.calibration == fit(seen.values, seen.labels)
    assert card.calibration.samples == len(session.run.data.val) == 27
    found = session.evaluation.reliability
    assert found.calibration == card.calibration
    assert found.cross_fitted

    run = validation.finish(session)
    assert artifact.load_card(tmp_path / "last").calibration == card.calibration
    written = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert written["calibration"]["temperature"] == card.calibration.temperature
    assert written["samples"] == 27 and "confusion" not in written
    rows = read_predictions(tmp_path / "predictions.csv").predictions
    scaled = softmax(seen.values / card.calibration.temperature, axis=1)
    given = scaled[np.arange(27), seen.labels]
    assert [row.label_probability for row in rows] == [float(f"{value:.6g}") for value in given]
    assert isinstance(run.evaluation, SingleLabelEvaluation)

    session.evaluation = None  # resumed after the last step: the same once more
    files = ("evaluation.json", "predictions.csv")
    before = [(tmp_path / name).read_text(encoding="utf-8") for name in files]
    validation.finish(session)
    assert [(tmp_path / name).read_text(encoding="utf-8") for name in files] == before


def test_the_evaluation_is_of_the_averaged_weights(tmp_path: Path) -> None:
    session = begin(tmp_path)
    with torch.no_grad():
        for tensor in session.ema.tensors.values():
            tensor.zero_()
    validation.validate(session)
    assert session.evaluation is not None
    assert session.evaluation.loss == np.float64(np.log(3)).item() or np.isclose(
        session.evaluation.loss, np.log(3)
    )
    assert session.backbone.get_parameter("head.weight").abs().max() > 0, (
        "training goes on with its own"
    )


def test_validation_images_that_cannot_be_read_are_named_and_many_stop(tmp_path: Path) -> None:
    for part, first in (("train", 0), ("val", 5000)):
        draw_folder(tmp_path / "photos" / part, kinds=3, each=45, first=first)
    asked = Request(data=str(tmp_path / "photos"), model="mu/8", size=32, batch=8)
    recipe = resolve(replace(asked, changes=["data.workers=0"]))
    data = open_data(recipe.data, recipe.images.size)
    bad = sorted((tmp_path / "photos" / "val" / "cross").iterdir())
    spoil(bad[0])
    told: list[str] = []

    class Told(Display):
        def note(self, text: str) -> None:
            told.append(text)

    recipe = run_folder.with_data(recipe, data)
    session = begin_run(context(recipe, data, tmp_path / "run", Told(quiet=True)))
    assert len(validation.observe(session).keys) == 134
    validation.observe(session)
    assert [line for line in told if "cannot be" in line or "damaged" in line] == [
        line for line in told if line.startswith(f"left out: val/cross/{bad[0].name}: ")
    ]
    assert sum("left out" in line for line in told) == 1, "once"
    for path in bad[1:4]:
        spoil(path)
    with pytest.raises(DataError, match="4 of 270 files under"):
        validation.observe(session)
