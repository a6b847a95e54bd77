"""Pictures without labels, from the command to the weights that a classifier starts from."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from drawn import draw_folder

COMMAND = [sys.executable, "-m", "vitral", "train"]
Run = Callable[..., tuple[int, str, str]]
SETTINGS = [
    "--recipe=masked-patches",
    "--model=mu/8",
    "--size=32",
    "--batch=12",
    "--set=length=8 steps",
    "--set=schedule.warmup=2 steps",
    "--set=evaluate_every=4 steps",
    "--set=noise.drop_path=0.2",
    "--set=ema=0.9",
    "--set=precision=fp32",
    "--set=data.workers=0",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same drawn pictures without and with folders of their classes."""
    root = tmp_path_factory.mktemp("data")
    classes = draw_folder(root / "classes", kinds=3, each=20)
    flat = root / "pictures"
    flat.mkdir()
    for path in sorted(classes.rglob("*.jpg")):
        shutil.copy(path, flat / f"{path.parent.name}-{path.name}")
    return root / "pictures", classes


def numbers(run: Path) -> list[tuple[float, ...]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    keys = ("step", "loss", "patch_accuracy", "val_loss", "val_score")
    return [tuple(line[key] for key in keys if key in line) for line in lines]


def test_a_start_without_labels_is_taken_by_from(
    folders: tuple[Path, Path], tmp_path: Path, vitral: Run
) -> None:
    pictures, classes = folders
    start = tmp_path / "start"
    code, out, err = vitral("train", pictures, *SETTINGS, "--out", start)
    assert code == 0, err
    assert "without labels" in err
    assert "by the frequency of the colours alone" in err
    assert f"vitral train PHOTOS/ --from {start}" in out
    assert (start / "report.html").is_file()
    assert not (start / "predictions.csv").exists()
    card = json.loads((start / "best" / "model.json").read_text())
    assert card["classes"] == [] and card["model"]["classes"] == 0
    assert {"patch_accuracy", "unigram_entropy", "interval", "loss"} <= card["metrics"].keys()
    tensors = load_file(start / "best" / "model.safetensors")
    assert not any("mask" in name or "answer" in name or "head" in name for name in tensors)

    tuned = tmp_path / "tuned"
    code, _, err = vitral(
        "train", classes, "--from", start, "--out", tuned, "--set=length=2 steps",
        "--set=schedule.warmup=1 steps", "--set=evaluate_every=2 steps", "--set=data.workers=0",
    )  # fmt: skip
    assert code == 0, err
    assert "a new head of zeros for 3 classes" in err
    picture = next(classes.rglob("*.jpg"))
    code, out, _ = vitral("predict", tuned, picture, "--json")
    assert code == 0 and json.loads(out)["results"][0]["label"]
    code, _, err = vitral("predict", start, picture)
    assert code == 4 and "has no head" in err


def test_labels_that_are_there_are_said_to_be_ignored(
    folders: tuple[Path, Path], tmp_path: Path, vitral: Run
) -> None:
    _, classes = folders
    code, _, err = vitral("train", classes, *SETTINGS, "--out", tmp_path / "run")
    assert code == 0, err
    assert "nothing is learnt from them" in err


def test_a_resume_is_bit_equal(folders: tuple[Path, Path], tmp_path: Path, vitral: Run) -> None:
    pictures, _ = folders
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for run in (whole, cut):
        code, _, err = vitral("train", pictures, *SETTINGS, "--set=save_seconds=0", "--out", run)
        assert code == 0, err
    slots = sorted((cut / "state").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    slots[-1].unlink()  # as if it had been killed before its last state
    shutil.rmtree(cut / "best")
    shutil.rmtree(cut / "last")
    code, _, err = vitral("train", "--resume", cut)
    assert code == 0, err
    assert numbers(cut) == numbers(whole)
    for part in ("best", "last"):
        first = load_file(whole / part / "model.safetensors")
        again = load_file(cut / part / "model.safetensors")
        assert all(first[name].equal(again[name]) for name in first)


def test_bad_input_gets_a_sentence(folders: tuple[Path, Path], tmp_path: Path, vitral: Run) -> None:
    pictures, classes = folders
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "one" / "a.png")
    out = ("--out", tmp_path / "run")
    for words, code, sentence in (
        ((tmp_path / "empty",), 3, "No images"),
        ((tmp_path / "one",), 3, "one image"),
        ((tmp_path / "nowhere",), 3, "does not exist"),
        ((pictures, "--model=R50+B/16"), 2, "plain ViT"),
        ((pictures, "--set=select=best"), 2, "select=last"),
        ((pictures, "--set=objective.corrupted=1"), 2, "between 0 and 1"),
        ((pictures, "--set=objective.loss=bce"), 2, "no field 'loss'"),
        ((pictures, "--set=objective.kind=classification"), 2, "--recipe"),
    ):
        found, _, err = vitral("train", *SETTINGS, *words, *out)
        assert (found, sentence in err) == (code, True), err
        assert not (tmp_path / "run").exists()
    (tmp_path / "nameless").mkdir()  # names of files may hold labels, these hold none
    for number, path in enumerate(sorted(pictures.iterdir())[:6]):
        shutil.copy(path, tmp_path / "nameless" / f"{number}.jpg")
    found, _, err = vitral("train", tmp_path / "nameless", *out)
    assert found == 3 and "--recipe masked-patches" in err
    assert classes.is_dir()


@pytest.mark.proof
@pytest.mark.parametrize("more", [["--devices=2"], ["--devices=2", "--shard"], ["--accumulate"]])
def test_processes_and_micro_batches_learn_what_one_process_learns(
    folders: tuple[Path, Path], tmp_path: Path, more: list[str]
) -> None:
    pictures, _ = folders
    more = ["--set=accumulate=3"] if more == ["--accumulate"] else more
    for name, words in (("one", []), ("many", more)):
        done = subprocess.run(
            [*COMMAND, str(pictures), *SETTINGS, *words, "--out", str(tmp_path / name)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    for one, other in zip(numbers(tmp_path / "one"), numbers(tmp_path / "many"), strict=True):
        assert one == pytest.approx(other, rel=1e-5)
