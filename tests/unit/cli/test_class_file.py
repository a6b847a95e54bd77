"""--classes FILE, as it is typed: of a model's logits, and of folders that are numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vitral.cli.convert
import vitral.cli.evaluate
import vitral.cli.predict  # noqa: F401 - hangs the verbs on the application
from vitral import create
from vitral.specs import ImageSpec
from vitral.weights import artifact
from vitral.weights.card import Card

NAMES = ["arrow <b>", '"crescent"', "십자"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An artifact of which nothing names the classes."""
    model = create("mu/16", classes=3, size=32)
    card = Card(model=model.spec, images=ImageSpec(size=(32, 32)), classes=("0", "1", "2"))
    artifact.save(tmp_path / "run", model.state_dict(), card)
    return tmp_path / "run"


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "names.json"
    path.write_text(json.dumps(NAMES, ensure_ascii=False), encoding="utf-8")
    return path


def test_answers_carry_the_names(vitral, run, photos, names):
    picture = next(photos.rglob("*.jpg"))
    code, out, err = vitral("predict", run, picture, "--classes", names, "--json")
    assert code == 0, err
    assert {one["label"] for one in json.loads(out)["results"][0]["top"]} == set(NAMES)


def test_an_artifact_keeps_the_names(vitral, run, names, tmp_path):
    code, out, err = vitral("convert", run, tmp_path / "named", "--classes", names)
    assert code == 0, err
    assert f"classes are named by {names}" in out
    assert artifact.load_card(tmp_path / "named").classes == tuple(NAMES)


def test_folders_and_logits_by_one_file(vitral, run, photos, names):
    for number, folder in enumerate(sorted(photos.iterdir())):
        folder.rename(photos / str(number))
    code, out, err = vitral("evaluate", run, photos, "--classes", names, "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["samples"] == 36
    assert any("0 is 'arrow <b>'" in one["sentence"] for one in answer["decisions"])


def test_a_wrong_count_is_answered(vitral, run, photos, tmp_path):
    (tmp_path / "two.txt").write_text("a\nb\n")
    for words in (
        ("predict", run, photos, "--classes", tmp_path / "two.txt"),
        ("convert", run, tmp_path / "x", "--classes", tmp_path / "two.txt"),
        ("evaluate", run, photos, "--classes", tmp_path / "two.txt"),
    ):
        code, _, err = vitral(*words)
        assert (code, "names 2 classes, and the model has 3" in err) == (3, True), err
    assert not (tmp_path / "x").exists()
