"""Each bad input gets one sentence (what, where, what to do), its exit code, no traceback, and
leaves the user's files as they were."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from drawn import draw_folder, hashes

Vitral = Callable[..., tuple[int, str, str]]
QUICK = ("--model", "mu/8", "--size", "32", "--epochs", "1", "--set", "data.workers=0")


@pytest.fixture
def run(trained: Path) -> Path:
    return trained / "run"


@pytest.fixture
def untouched(photos: Path) -> Iterator[Path]:
    """The photos, compared with themselves after the test."""
    before = hashes(photos)
    yield photos
    after = hashes(photos)
    assert {name: after.get(name) for name in before} == before


def refused(result: tuple[int, str, str], code: int, *words: str) -> None:
    assert result[0] == code, result
    message = result[2].strip()
    assert message.startswith("vitral: ")
    assert "Traceback" not in message
    assert len(message) < 600
    for word in words:
        assert word in message, f"{word!r} is not in {message!r}"


def test_no_images(vitral: Vitral, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out = tmp_path / "run"
    refused(vitral("train", tmp_path / "empty", "--out", out), 3, "No images", "empty")
    assert not out.exists()


def test_a_folder_that_is_not_there(vitral: Vitral, untouched: Path, tmp_path: Path) -> None:
    wrong = untouched.with_name("fotos")
    refused(vitral("train", wrong, "--out", tmp_path / "run"), 3, "does not exist", "did you mean")


def test_one_class(vitral: Vitral, tmp_path: Path) -> None:
    draw_folder(tmp_path / "one", kinds=1, each=3)
    refused(vitral("train", tmp_path / "one", "--out", tmp_path / "run"), 3, "one class")


def test_an_unreadable_file_among_good_ones(
    vitral: Vitral, untouched: Path, tmp_path: Path
) -> None:
    good = next(untouched.rglob("*.jpg"))
    broken = good.with_name("broken.jpg")
    broken.write_bytes(good.read_bytes()[:200])
    before = hashes(untouched)
    code, _, err = vitral("train", untouched, *QUICK, "--out", tmp_path / "run")
    assert code == 0
    assert "left out" in err
    assert "broken.jpg" in err
    assert hashes(untouched) == before

    good.with_name("page.jpg").write_text("<html>404</html>")
    result = vitral("train", untouched, *QUICK, "--out", tmp_path / "no")
    refused(result, 3, "2 of", "page.jpg", "allow_unreadable")
    allowed = ("--set", "data.allow_unreadable=true", "--out", tmp_path / "yes")
    assert vitral("train", untouched, *QUICK, *allowed)[0] == 0
    good.with_name("page.jpg").unlink()
    broken.unlink()


def test_a_class_missing_from_val_is_said_and_trained(vitral: Vitral, tmp_path: Path) -> None:
    data = tmp_path / "data"
    draw_folder(data / "train", kinds=3, each=8)
    draw_folder(data / "val", kinds=2, each=3, first=5000)
    code, _, err = vitral("train", data, *QUICK, "--out", tmp_path / "run")
    assert code == 0, err
    missing = {p.name for p in (data / "train").iterdir()} - {
        p.name for p in (data / "val").iterdir()
    }
    assert next(iter(missing)) in err


def test_a_class_of_val_that_train_does_not_have(vitral: Vitral, tmp_path: Path) -> None:
    data = tmp_path / "data"
    draw_folder(data / "train", kinds=2, each=4)
    draw_folder(data / "val", kinds=3, each=2, first=5000)
    strange = {p.name for p in (data / "val").iterdir()} - {
        p.name for p in (data / "train").iterdir()
    }
    refused(vitral("train", data, *QUICK, "--out", tmp_path / "run"), 3, next(iter(strange)))


def test_size_not_a_multiple_of_the_patch(vitral: Vitral, untouched: Path, tmp_path: Path) -> None:
    result = vitral(
        "train", untouched, "--model", "Ti/16", "--size", "100", "--out", tmp_path / "r"
    )
    refused(result, 2, "100", "patch", "96", "112")
    assert not (tmp_path / "r").exists()


def test_unknown_model_and_option(vitral: Vitral, untouched: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    refused(vitral("train", untouched, "--model", "Q/16", "--out", out), 4, "Q/16")
    refused(
        vitral("train", untouched, "--set", "optimizer.wieght_decay=1", "--out", out),
        2,
        "did you mean 'weight_decay'",
    )
    refused(vitral("train", untouched, "--recipe", "scrach-small", "--out", out), 2, "did you mean")
    refused(vitral("train", untouched, "--size", "big", "--out", out), 2, "--size")
    code, _, err = vitral("train", untouched, "--epohcs", "3")
    assert code == 2
    assert "--epochs" in err
    assert not out.exists()


def test_out_that_cannot_be_written(vitral: Vitral, untouched: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    refused(vitral("train", untouched, "--out", tmp_path / "file" / "run"), 5, "Cannot write")
    if os.geteuid() == 0:
        place = Path("/proc/vitral-run")  # not even root may write here
    else:
        place = tmp_path / "locked"
        place.mkdir(mode=0o500)
    refused(vitral("train", untouched, "--out", place / "run"), 5, "Cannot write")


def test_out_inside_the_data(vitral: Vitral, untouched: Path) -> None:
    refused(vitral("train", untouched, "--out", untouched / "run"), 2, "inside", "outside")
    assert not (untouched / "run").exists()


def test_out_that_is_taken(vitral: Vitral, untouched: Path, run: Path, tmp_path: Path) -> None:
    refused(vitral("train", untouched, "--out", run), 2, "already holds a run", "--resume")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    refused(vitral("train", untouched, "--out", tmp_path / "full"), 2, "not empty")
    assert (tmp_path / "full" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_an_artifact_with_wrong_keys(
    vitral: Vitral, run: Path, tmp_path: Path, change: str
) -> None:
    copy = tmp_path / "artifact"
    shutil.copytree(run / "best", copy)
    tensors = load_file(copy / "model.safetensors")
    match change:
        case "missing":
            del tensors["cls"]
            words = ["Missing: cls", "Unexpected: none"]
        case "unexpected":
            tensors["extra"] = tensors["cls"].clone()
            words = ["Missing: none", "Unexpected: extra"]
        case _:
            tensors["cls"] = tensors["cls"][..., :3].contiguous()
            words = ["'cls' has shape", "needs"]
    save_file(tensors, copy / "model.safetensors")
    refused(vitral("evaluate", copy, "shapes"), 4, *words)


def test_a_damaged_artifact(vitral: Vitral, run: Path, tmp_path: Path) -> None:
    picture = next(run.parent.rglob("*.jpg"))
    copy = tmp_path / "artifact"
    shutil.copytree(run / "best", copy)
    content = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(content[:1000])
    refused(vitral("predict", copy, picture), 4, "cannot be read", "damaged")
    (copy / "model.safetensors").unlink()
    refused(vitral("predict", copy, picture), 4, "model.safetensors")
    card = json.loads((copy / "model.json").read_text())
    for wrong, word in (
        ({**card, "format": 99}, "format 99"),
        ({**card, "extra": 1}, "Unexpected: extra"),
        ({**card, "classes": card["classes"][:-1]}, "class names"),
        ({**card, "model": {**card["model"], "dpeth": 3}}, "did you mean 'depth'"),
    ):
        (copy / "model.json").write_text(json.dumps(wrong))
        refused(vitral("predict", copy, picture), 4, word)
    (copy / "model.json").write_text("{")
    refused(vitral("predict", copy, picture), 4, "model.json")
    (copy / "model.json").unlink()
    refused(vitral("predict", copy, picture), 4, "neither a run folder nor an artifact")


def test_predict_goes_on_past_what_is_no_image(vitral: Vitral, run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (20, 30)).save(tmp_path / "ok.png")
    (tmp_path / "page.jpg").write_text("<html>404</html>")
    code, out, _ = vitral("predict", run, tmp_path, "--json")
    assert code == 0
    results = json.loads(out)["results"]
    assert [Path(result["path"]).name for result in results] == ["ok.png", "page.jpg"]
    assert results[0]["label"]
    assert results[1]["error"]["code"] == "unreadable"
    refused(vitral("predict", run, tmp_path / "page.jpg"), 3, "could be read")
    refused(vitral("predict", run, tmp_path / "nothing.jpg"), 3, "does not exist")


def test_evaluate_with_an_unknown_class(vitral: Vitral, run: Path, tmp_path: Path) -> None:
    data = draw_folder(tmp_path / "data", kinds=3, each=2)
    (data / "disc2").mkdir()
    Image.new("RGB", (20, 30)).save(data / "disc2" / "a.png")
    refused(vitral("evaluate", run, data), 3, "disc2", "does not know")


def test_resume_of_what_is_no_run(vitral: Vitral, tmp_path: Path, run: Path) -> None:
    refused(vitral("train", "--resume", tmp_path), 2, "not a run folder")
    refused(vitral("train", "digits", "--resume", run), 3, "--resume")
    refused(vitral("train"), 2, "vitral train PHOTOS/")


def test_an_image_is_never_written_over(vitral: Vitral, run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "my.png"
    Image.new("RGB", (20, 30), "red").save(picture)
    before = picture.read_bytes()
    refused(vitral("explain", run, picture, "--out", picture), 2, "one of the images")
    refused(vitral("predict", run, picture, "--csv", picture), 2, "one of the images")
    assert picture.read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["--epochs", "inf"], "above 0, not inf"),
        (["--epochs", "0"], "above 0, not 0"),
        (["--batch", "0"], "at least 1"),
        (["--seed", "99999999999999999999999999"], "seed"),
        (["--seed", "-1"], "seed"),
        (["--set", "length=1.2.3 epochs"], "20 epochs"),
        (["--set", "images.mean=[NaN,1,1]"], "finite"),
        (["--set", "images.std=[1e-320,1,1]"], "std > 0"),
        (["--set", "images.mean=[0.5,0.5]", "--set", "images.std=[0.5,0.5]"], "3 values"),
        (["--set", "model.channels=1"], "3 channels"),
        (["--set", "model.width=1000000000"], "16,777,216"),
        (["--set", "model.depth=1000000000"], "depth"),
        (["--set", "optimizer.weight_decay=Infinity"], "weight_decay"),
        (["--set", "data.source=elsewhere"], "the images are named by themselves"),
        (["--device", "abacus"], "cannot be used"),
        (["--device", "meta"], "cannot be used"),
    ],
    ids=str,
)
def test_settings_that_no_run_can_use(
    vitral: Vitral, untouched: Path, tmp_path: Path, settings: list[str], words: str
) -> None:
    code, _, err = vitral("train", untouched, *QUICK[:4], *settings, "--out", tmp_path / "run")
    assert code in (2, 5), err
    assert "Traceback" not in err
    assert words in err
    assert not (tmp_path / "run").exists()


def test_odd_names_go_through_unchanged(vitral: Vitral, run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a:smile:[red]b 한.jpg"
    Image.new("RGB", (20, 30), "red").save(picture)
    assert str(picture) in vitral("predict", run, picture)[1]
    stray = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    shutil.copyfile(picture, stray)
    code, out, _ = vitral("predict", run, stray, "--json", "--csv", tmp_path / "a.csv")
    assert code == 0
    assert "caf" in json.loads(out)["results"][0]["path"]
    assert "caf" in (tmp_path / "a.csv").read_text(encoding="utf-8")


def test_a_class_name_that_is_no_valid_text_trains(vitral: Vitral, photos: Path) -> None:
    first = sorted(photos.iterdir())[0]
    first.rename(os.fsdecode(os.fsencode(photos) + b"/caf\xe9"))
    run = photos.parent / "run"
    code, _, err = vitral("train", photos, *QUICK, "--out", run)
    assert code == 0, err
    assert vitral("evaluate", run, photos)[0] == 0


def test_a_path_that_is_too_long(vitral: Vitral, run: Path, untouched: Path) -> None:
    for words in (
        ("evaluate", "a" * 300, untouched),
        ("train", "a" * 300),
        ("predict", run, "a" * 300),
    ):
        code, _, err = vitral(*words)
        assert code in (3, 4, 5)
        assert "Traceback" not in err


def test_a_file_asked_for_twice_is_answered_twice(vitral: Vitral, run: Path) -> None:
    picture = next(run.parent.rglob("*.jpg"))
    results = json.loads(vitral("predict", run, picture, picture, "--json")[1])["results"]
    assert len(results) == 2


def test_the_reader_of_a_pipe_may_leave(run: Path) -> None:
    command = f"{sys.executable} -m vitral models | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
