"""What reaches the libraries is read back with their own readers, after a resume too."""

import importlib
import importlib.util
import json
import math
import sqlite3
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vitral.errors import MachineError, UsageError
from vitral.training import loggers
from vitral.training.loggers import Loggers

RECIPE = {"optimizer": {"kind": "adamw", "lr": 0.001}, "schedule": {"drops": [0.3, 0.6]}, "ema": 0}


def needs(name: str) -> pytest.MarkDecorator:
    there = importlib.util.find_spec(name) is not None
    return pytest.mark.skipif(not there, reason=f"{name} is an extra: vitral[{name}]")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    out = tmp_path / "run"
    out.mkdir()
    (out / "recipe.json").write_text(json.dumps({"recipe": RECIPE, "date": time.time()}))
    return out


def killed_and_resumed(out: Path, name: str) -> list[str]:
    """Steps 1 to 5 of which metrics.jsonl keeps 1 to 3; then 4 to 7. Returns the notes."""
    notes: list[str] = []
    with Loggers((name,), out, RECIPE, note=notes.append) as first:
        for step in range(1, 6):
            line = {"step": step, "loss": 1 / step, "accuracy": None, "lr": 0.5, "epoch": step / 4}
            first.log(line)
            if step <= 3:
                with (out / "metrics.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
    with Loggers((name,), out, RECIPE, note=notes.append) as second:
        for step in range(4, 8):
            second.log({"step": step, "loss": 10.0 * step})
        second.log({"step": 7, "val_accuracy": 0.5, "val_interval": [0.4, 0.6], "val_loss": 0.25})
        second.log({"step": 8, "loss": math.nan, "images_per_second": math.inf})
    return notes


LOSSES = {1: 1, 2: 1 / 2, 3: 1 / 3, 4: 40, 5: 50, 6: 60, 7: 70}


@needs("tensorboard")
def test_tensorboard_shows_each_step_once_after_a_resume(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert killed_and_resumed(run, "tensorboard") == []
    seen = EventAccumulator(str(run / "tensorboard"))
    seen.Reload()
    assert set(seen.Tags()["scalars"]) == {
        "train/loss",
        "train/lr",
        "train/epoch",
        "val/accuracy",
        "val/loss",
    }
    losses = {event.step: event.value for event in seen.Scalars("train/loss")}
    assert losses == pytest.approx(LOSSES)
    assert len(seen.Scalars("train/loss")) == 7
    assert [(event.step, event.value) for event in seen.Scalars("val/accuracy")] == [(7, 0.5)]


@needs("tensorboard")
def test_tensorboard_when_a_run_returns_to_an_earlier_state(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Loggers(("tensorboard",), run, RECIPE) as found:
        for step in (1, 2, 3, 4, 2, 3):
            found.log({"step": step, "loss": float(step)})
    seen = EventAccumulator(str(run / "tensorboard"))
    seen.Reload()
    assert [event.step for event in seen.Scalars("train/loss")] == [1, 2, 3]


@needs("mlflow")
def test_mlflow_goes_on_with_the_same_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{run.parent}/mlflow.db")
    assert killed_and_resumed(run, "mlflow") == []
    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'vitral'")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["optimizer.kind"] == "adamw"
    history = client.get_metric_history(found.info.run_id, "train/loss")
    assert {point.step: point.value for point in history} == pytest.approx(LOSSES)


@needs("trackio")
def test_trackio_goes_on_with_the_same_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(run.parent / "trackio"))
    assert killed_and_resumed(run, "trackio") == []
    (path,) = (run.parent / "trackio").glob("*.db")
    with sqlite3.connect(path) as database:
        rows = database.execute("select run_id, step, metrics from metrics order by id").fetchall()
    assert len({number for number, _, _ in rows}) == 1
    lines = [(step, json.loads(text)) for _, step, text in rows]
    losses = {step: line["train/loss"] for step, line in lines if "train/loss" in line}
    assert losses == pytest.approx(LOSSES)


@needs("wandb")
def test_wandb_offline_goes_on_with_the_same_run(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert killed_and_resumed(run, "wandb") == []
    files = sorted((run / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert len({file.name for file in files}) == 1  # the id
    assert all(b"train/loss" in file.read_bytes() for file in files)


def test_the_identity_is_that_of_the_run(run: Path) -> None:
    identity = loggers._identity(run)
    moved = run.rename(run.parent / "moved")
    assert loggers._identity(moved) == identity
    other = run.parent / "other" / "moved"
    other.mkdir(parents=True)
    (other / "recipe.json").write_text("{}")
    assert loggers._identity(other) != identity


def test_a_library_that_is_not_there_or_not_known(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="did you mean 'wandb'"):
        Loggers(("wandd",), run, {})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MachineError, match=r"needs mlflow: pip install 'vitral\[mlflow\]'"):
        Loggers(("mlflow",), run, {})
    with Loggers((), run, {}) as none:
        none.log({"step": 1, "loss": 1.0})


LIBRARY = """
import time

steps, closed = [], 0

def init(**settings):
    return Run()

class Run:
    def log(self, scalars, step):
        if step >= {ends}:
            raise ConnectionError("no route to host\\nand much more")
        steps.append(step)

    def finish(self):
        global closed
        time.sleep({hangs})
        closed += 1
"""


@pytest.fixture
def library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., types.ModuleType]]:
    """A library in trackio's place whose network goes away at a step, or that hangs at the end."""
    held = sys.modules.pop("trackio", None)
    monkeypatch.syspath_prepend(tmp_path)

    def written(*, ends: int = 1000, hangs: float = 0.0) -> types.ModuleType:
        (tmp_path / "trackio.py").write_text(LIBRARY.format(ends=ends, hangs=hangs))
        importlib.invalidate_caches()
        return importlib.import_module("trackio")

    yield written
    del sys.modules["trackio"]
    if held is not None:
        sys.modules["trackio"] = held


def test_one_that_fails_is_told_of_once_and_training_goes_on(
    run: Path, library: Callable[..., types.ModuleType]
) -> None:
    there, notes = library(ends=3), list[str]()
    with Loggers(("trackio",), run, {}, note=notes.append) as found:
        for step in range(1, 9):
            found.log({"step": step, "loss": 1.0})
    assert there.steps == [1, 2]
    (note,) = notes
    assert note.startswith("trackio is left out from here on (ConnectionError: no route to host);")


def test_everything_is_flushed_before_the_end(
    run: Path, library: Callable[..., types.ModuleType]
) -> None:
    there = library()
    with Loggers(("trackio",), run, {}) as found:
        for step in range(200):
            found.log({"step": step, "loss": 1.0})
    assert there.steps == list(range(200))
    assert there.closed == 1


def test_one_that_hangs_is_left(
    run: Path, library: Callable[..., types.ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    library(hangs=5.0)
    notes: list[str] = []
    monkeypatch.setattr(loggers, "CLOSING_SECONDS", 0.1)
    began = time.monotonic()
    with Loggers(("trackio",), run, {}, note=notes.append) as found:
        found.log({"step": 1, "loss": 1.0})
    assert time.monotonic() - began < 3
    assert notes == ["trackio did not finish in 0 s and was left."]


@needs("tensorboard")
def test_one_that_cannot_begin_stops_a_new_run_alone(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    (run / "tensorboard").write_text("a file where the folder belongs")
    with (
        pytest.raises(MachineError, match=r"tensorboard cannot begin \(File"),
        Loggers(("tensorboard",), run, {}, note=notes.append),
    ):
        pass
    (run / "metrics.jsonl").write_text('{"step": 12, "loss": 1.0}\n')
    with Loggers(("tensorboard",), run, {}, note=notes.append) as found:
        found.log({"step": 13, "loss": 1.0})
    assert len(notes) == 1
