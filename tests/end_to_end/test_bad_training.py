"""Bad requests of `vitral train`: one sentence each, its exit code, nothing left behind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vitral import train

Vitral = Callable[..., tuple[int, str, str]]
SMALL = ("--model", "mu/8", "--size", "32", "--set", "data.workers=0")


@pytest.fixture
def run(trained: Path) -> Path:
    return trained / "run"


def refused(result: tuple[int, str, str], code: int, *words: str) -> None:
    assert result[0] == code, result
    message = result[2].strip().splitlines()[-1]
    assert message.startswith("vitral: ")
    assert "Traceback" not in result[2]
    for word in words:
        assert word in message, f"{word!r} is not in {message!r}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--recipe", "scratch-smal"), "did you mean 'scratch-small'?"),
        (("--set", "optimizer.lrr=1"), "did you mean 'lr'?"),
        (("--set", "warmup=3 epochs"), "schedule.warmup"),
        (("--set", "schedule.warmup=5000 steps"), "longer than the run"),
        (("--set", "objective.loss=hinge"), "softmax | sigmoid | bce"),
        (("--recipe", "finetune"), "--from WEIGHTS"),
        (("--recipe", "deit-distilled"), "objective.teacher=WEIGHTS"),
        (("--tune", "probe"), "--from WEIGHTS"),
        (("--set", "tune=last"), "last:N"),
        (("--batch", "many"), "--batch"),
        (("--set", "accumulate=1000"), "accumulate"),
        (("--json",), "--dry-run"),
        (("--log", "tensorbord"), "did you mean 'tensorboard'?"),
        (("--devices", "0"), "--devices"),
        (("--set", "patience=2", "--set", "select=last"), "patience"),
    ],
)
def test_requests_that_make_no_run(
    vitral: Vitral, photos: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    out = tmp_path / "run"
    result = vitral("train", photos, *SMALL, *words, "--out", out)
    refused(result, 2, said)
    assert not out.exists()


def test_weights_of_another_architecture(
    vitral: Vitral, photos: Path, run: Path, tmp_path: Path
) -> None:
    words = ("--from", run, "--set", "model.depth=3", "--out", tmp_path / "new")
    result = vitral("train", photos, *words)
    assert result[0] in (2, 4)
    refused(result, result[0], "another architecture", "depth")
    refused(
        vitral("train", photos, "--from", run, "--model", "S/16", "--out", tmp_path / "new"),
        2,
        "leave --model out",
    )
    refused(
        vitral("train", photos, "--from", run, "--tune", "last:7", "--out", tmp_path / "new"),
        2,
        "'last:1' for mu/8, not 'last:7'",
    )
    assert not (tmp_path / "new").exists()


def test_a_resume_of_what_cannot_go_on(vitral: Vitral, run: Path, tmp_path: Path) -> None:
    newer = shutil.copytree(run, tmp_path / "newer")
    content = json.loads((newer / "recipe.json").read_text())
    content["environment"]["vitral"] = "99.1.0"
    (newer / "recipe.json").write_text(json.dumps(content))
    refused(vitral("train", "--resume", newer), 2, "99.1.0", "pip install -U vitral")

    edited = shutil.copytree(run, tmp_path / "edited")
    content["environment"]["vitral"] = "0.1.0"
    content["recipe"]["optimizer"]["kind"] = "sgd"
    (edited / "recipe.json").write_text(json.dumps(content))
    refused(vitral("train", "--resume", edited), 2, "was edited", "--recipe")

    wider = ["model.width=64", "model.mlp_width=256", "data.workers=0"]
    data = content["recipe"]["data"]["source"]
    train(data, model="mu/8", size=32, epochs=1, out=tmp_path / "other", changes=wider)
    shutil.rmtree(tmp_path / "other" / "state")
    shutil.copytree(run / "state", tmp_path / "other" / "state")
    refused(vitral("train", "--resume", tmp_path / "other"), 4, "another recipe")

    refused(vitral("train", "--resume", run, "--epochs", "3"), 2, "--from")
    refused(vitral("train", "--resume", tmp_path / "nothing"), 2, "not a run folder")


def test_images_that_changed_since(vitral: Vitral, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert vitral("train", photos, *SMALL, "--epochs", "1", "--out", out)[0] == 0
    first = next(photos.rglob("*.jpg"))
    first.rename(first.with_name("renamed.jpg"))
    refused(vitral("train", "--resume", out), 3, "changed since")
