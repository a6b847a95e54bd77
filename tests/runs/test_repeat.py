"""A run made again: equal to the bit here, and the reasons where it is not."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vitral import train
from vitral.evaluation import evaluate_single_label
from vitral.planning.plan import open_data
from vitral.planning.repeat import compared, made_by
from vitral.training import run_folder
from vitral.weights import artifact

Vitral = Callable[..., tuple[int, str, str]]


def edited(run: Path, **environment: object) -> None:
    """Let a run say that it was made elsewhere."""
    for path, part in ((run / "recipe.json", "environment"), (run / "best" / "model.json", "")):
        content = json.loads(path.read_text(encoding="utf-8"))
        target = content["environment"] if part else content["made_by"]["environment"]
        target.update(environment)
        path.write_text(json.dumps(content), encoding="utf-8")


def test_a_run_made_again_is_bit_equal(trained: Path, tmp_path: Path, vitral: Vitral) -> None:
    code, out, err = vitral("repeat", trained / "run", "--out", tmp_path / "again", "--json")
    assert code == 0, err
    done = json.loads(out)
    assert done["verdict"] == "bit-equal" and done["since"] == []
    assert done["equal"] == done["tensors"] > 10 and done["largest_difference"] == 0
    assert done["before"] == done["now"]
    one, two = (
        (place / "best" / "model.safetensors").read_bytes()
        for place in (trained / "run", tmp_path / "again")
    )
    assert one == two
    # an artifact alone, whose images lie elsewhere now
    shutil.copytree(trained / "photos", tmp_path / "elsewhere")
    words = ("repeat", trained / "run" / "best", tmp_path / "elsewhere", "--out", tmp_path / "more")
    code, out, err = vitral(*words)
    assert code == 0, err
    assert "verdict   bit-equal" in out


def test_a_run_that_differs_says_since_when(trained: Path, tmp_path: Path, vitral: Vitral) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    shutil.copytree(trained / "photos", tmp_path / "photos")
    edited(tmp_path / "run", torch="1.13.0", threads=64)
    first = next((tmp_path / "photos").iterdir())
    next(first.iterdir()).unlink()
    words = ("repeat", tmp_path / "run", tmp_path / "photos", "--out", tmp_path / "again", "--json")
    code, out, err = vitral(*words)
    assert code == 0, err
    done = json.loads(out)
    assert done["verdict"] in ("within the interval", "different")
    assert done["largest_difference"] > 0
    said = "; ".join(done["since"])
    assert "other images (" in said
    assert "torch 1.13.0 then" in said and "threads 64 then" in said
    assert "Python" not in said


def test_the_verdict_is_by_the_interval(trained: Path) -> None:
    """The same run beside itself, with another score said of it."""
    run = trained / "run"
    made = made_by(run)
    data = open_data(made.recipe.data, made.recipe.images.size)
    tensors, _ = artifact.load_tensors(run / "best")
    head = {**tensors, "head.bias": tensors["head.bias"] + 1}
    evaluation = evaluate_single_label([[1.0, 0.0]] * 4, [0, 0, 1, 1], ("a", "b"), list("wxyz"))
    other = replace(made, weights=replace(made.weights, tensors=head))
    verdicts = {
        interval: compared(replace(other, interval=interval), data, run, evaluation).verdict
        for interval in ((0.4, 0.6), (0.6, 0.9), None)
    }
    assert verdicts == {
        (0.4, 0.6): "within the interval",
        (0.6, 0.9): "different",
        None: "different",
    }
    changed = compared(replace(other, interval=(0.6, 0.9)), data, run, evaluation)
    assert changed.largest == pytest.approx(1.0) and changed.equal == changed.tensors - 1
    assert "different, since nothing that is recorded differs" in " ".join(changed.lines())


def test_what_is_missing_is_answered(trained: Path, tmp_path: Path, vitral: Vitral) -> None:
    shutil.copytree(trained / "photos", tmp_path / "photos")
    changes = ["data.workers=0", "length=1 steps", "schedule.warmup=0 steps"]
    shutil.copytree(trained / "run", tmp_path / "first")
    run = train(
        tmp_path / "photos", start=tmp_path / "first", out=tmp_path / "run", changes=changes
    ).path
    shutil.rmtree(tmp_path / "first")
    code, _, err = vitral("repeat", run, "--out", tmp_path / "again")
    assert code == 4 and "began from the weights" in err and str(tmp_path / "first") in err
    shutil.rmtree(tmp_path / "photos")
    code, _, err = vitral("repeat", run, "--out", tmp_path / "again")
    assert code == 3 and f"vitral repeat {run} PHOTOS/" in " ".join(err.split())
    shutil.rmtree(run / "last")
    code, _, err = vitral("repeat", run)
    assert code == 2 and "Finish it first" in err
    tensors, card = artifact.load_tensors(trained / "run" / "best")
    artifact.save(tmp_path / "bare", tensors, replace(card, made_by={}))
    code, _, err = vitral("repeat", tmp_path / "bare")
    assert code == 4 and "does not say how it was made" in err
    assert not (tmp_path / "again").exists()


def test_the_record_says_what_may_change_a_bit(trained: Path) -> None:
    content = json.loads((trained / "run" / "recipe.json").read_text())["environment"]
    assert {"code", "torchvision", "numpy", "pillow", "cpu", "bf16", "threads"} <= set(content)
    assert content == {**run_folder.environment(), "date": content["date"]}
