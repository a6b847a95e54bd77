"""What is refused before anything is opened, with the words that do what was meant."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import vitral
from drawn import draw_folder
from vitral import catalog
from vitral.data.datasets import open_dataset
from vitral.errors import UsageError
from vitral.planning.plan import refuse_beside_resume
from vitral.planning.request import Request
from vitral.specs import ImageSpec
from vitral.training import run_folder
from vitral.training.recipe import Data, Recipe, Tune, epochs


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder as it is in its first moment."""
    photos = draw_folder(tmp_path / "my photos", kinds=2, each=5)
    recipe = Recipe(
        model=catalog.model("mu/16", size=32),
        images=ImageSpec(size=(32, 32)),
        data=Data(source=str(photos)),
        length=epochs(5),
    )
    data = open_dataset(photos)
    run_folder.create(tmp_path / "run", run_folder.with_data(recipe, data), data)
    return tmp_path / "run"


def test_a_resume_takes_no_settings_and_names_the_command_that_does(run: Path) -> None:
    (run / "last").mkdir()
    photos = run.parent / "my photos"
    refuse_beside_resume(run, Request())
    refuse_beside_resume(run, Request(data="elsewhere"))
    with pytest.raises(UsageError) as refused:
        refuse_beside_resume(run, Request(epochs=3.0, changes=("optimizer.lr=1e-4",)))
    assert str(refused.value) == (
        f"--resume goes on exactly as {run} began, so it takes no --epochs, --set. Its learning "
        f"rate ends with its 5 epochs: a longer one is another run, from these weights: vitral "
        f"train '{photos}' --from {run} --epochs 3 --set optimizer.lr=1e-4"
    )
    with pytest.raises(
        UsageError, match=r"takes no --batch auto\. What is set otherwise is another"
    ):
        refuse_beside_resume(run, Request(), measured=True)
    with pytest.raises(UsageError, match="leave --out out"):
        refuse_beside_resume(run, Request(), out=run)
    with pytest.raises(UsageError, match=r"another run: vitral train elsewhere --model S/16$"):
        refuse_beside_resume(run, Request(data="elsewhere", model="S/16"))
    with pytest.raises(UsageError, match="not a run folder"):
        refuse_beside_resume(run.parent, Request(epochs=3.0))


def test_a_run_that_has_not_ended_is_to_be_finished_first(run: Path) -> None:
    with pytest.raises(
        UsageError, match=f"Finish it first: vitral train --resume {run}. Its learn"
    ):
        refuse_beside_resume(run, Request(epochs=9.0))


def test_a_request_as_it_would_be_typed() -> None:
    request = Request(
        start="a b", tune=Tune.parse("last:2"), size=(32, 64), batch=8, seed=0, epochs=0.5
    )
    words = "--from 'a b' --tune last:2 --epochs 0.5 --size 32x64 --batch 8 --seed 0"
    assert request.command("x") == f"vitral train x {words}"
    assert set(request.options()[::2]) < {
        f"--{field.name}" for field in dataclasses.fields(Request)
    } | {"--from"}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"start": 3}, "start is a path, a name, or a run as vitral.train returned it, not a int"),
        ({"out": [1]}, "out is a path"),
        ({"batch": 0}, "at least 1, or 'auto', not 0"),
        ({"batch": True}, "not True"),
        ({"batch": "fast"}, "not 'fast'"),
        ({"tune": "head"}, "tune is full, probe"),
        ({"changes": "optimizer.lr=1"}, "not a text"),
        ({"resume": "nowhere", "epochs": 3}, "is not a run folder"),
        ({"resume": "nowhere", "out": "run"}, "leave --out out"),
    ],
)
def test_a_wrong_argument_is_named(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        vitral.train("digits", **asked)
