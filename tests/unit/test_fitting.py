"""What is fitted to a model after its training, in its own folder and in a new one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import vitral as package
from drawn import draw_folder, hashes
from multi_label import multi_label_artifact
from vitral.errors import DataError, UsageError
from vitral.weights import artifact

Vitral = Callable[..., tuple[int, str, str]]


@pytest.fixture
def plain(trained: Path, tmp_path: Path) -> Path:
    """The artifact of a run as earlier versions made it: nothing beside the temperature."""
    folder = Path(shutil.copytree(trained / "run" / "best", tmp_path / "plain"))
    (folder / artifact.FITTED).unlink()
    return folder


def test_training_fits_what_tells_foreign_images(trained: Path, vitral: Vitral) -> None:
    clf = package.load(trained / "run")
    assert clf.foreign is not None
    assert len(clf.foreign.held_out) == 6 and clf.foreign.learnt == 30
    picture = next((trained / "photos").rglob("*.jpg"))
    answer = clf.predict(picture)
    assert answer.foreign is (answer.foreign_score > 1)
    code, out, err = vitral("predict", trained / "run", picture, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)["results"][0]
    assert result["foreign"] is answer.foreign
    assert result["foreign_score"] == pytest.approx(answer.foreign_score, rel=1e-4)
    assert clf.explain(picture).answer["foreign"] is answer.foreign


def test_a_model_that_cannot_tell_says_so_and_fit_gives_it_what_it_lacks(
    trained: Path, plain: Path, vitral: Vitral
) -> None:
    picture = next((trained / "photos").rglob("*.jpg"))
    code, out, err = vitral("predict", plain, picture, "--json")
    assert code == 0
    result = json.loads(out)["results"][0]
    assert result["foreign"] is None and result["foreign_score"] is None
    assert "cannot tell images of something else" in err and f"vitral fit {plain} DATA" in err

    before = hashes(trained / "photos")
    weights = (plain / artifact.TENSORS).read_bytes()
    code, out, err = vitral("fit", plain, trained / "photos")
    assert code == 0, err
    assert "30 training and 6 held-out images, as its training divided them" in out
    assert "temperature" in out and "foreign" in out and f"written: {plain}" in out
    assert hashes(trained / "photos") == before
    assert (plain / artifact.TENSORS).read_bytes() == weights
    clf = package.load(plain)
    own = package.load(trained / "run")
    assert clf.card.calibration == own.card.calibration
    assert clf.predict(picture).foreign_score == pytest.approx(
        own.predict(picture).foreign_score, rel=1e-3
    )
    assert clf.card.made_by["fitted"]["held_out"] == 6
    code, _, err = vitral("predict", plain, picture)
    assert (code, err) == (0, "")


def test_weights_from_elsewhere_get_a_new_artifact(
    trained: Path, plain: Path, tmp_path: Path, vitral: Vitral
) -> None:
    timm = tmp_path / "timm"
    assert vitral("convert", plain, timm, "--to", "timm")[0] == 0
    code, _, err = vitral("fit", timm, trained / "photos")
    assert code == 2 and "--out DIR" in err
    code, _, err = vitral("fit", tmp_path / "nowhere", trained / "photos")
    assert code == 4 and "does not exist" in err
    code, out, err = vitral("fit", timm, trained / "photos", "--out", tmp_path / "new", "--json")
    assert code == 0, err
    values = json.loads(out)
    assert values["written"] == str(tmp_path / "new")
    assert (values["train"], values["held_out"], values["divided_as_trained"]) == (30, 6, False)
    assert values["calibration"]["samples"] == 6
    assert package.load(tmp_path / "new").foreign is not None
    # and copies carry it
    assert vitral("convert", tmp_path / "new", tmp_path / "copy")[0] == 0
    copy = package.load(tmp_path / "copy")
    assert copy.foreign is not None and copy.card.made_by["fitted"]["train"] == 30
    changed = ("--set", "images.fit=squash")
    assert vitral("convert", tmp_path / "new", tmp_path / "changed", *changed)[0] == 0
    assert package.load(tmp_path / "changed").foreign is None  # its features are others
    code, _, err = vitral("fit", plain, trained / "photos", "--out", tmp_path / "copy")
    assert code == 2 and "exists already" in err


def test_data_that_do_not_fit_are_answered(trained: Path, plain: Path, tmp_path: Path) -> None:
    before = hashes(plain)
    stranger = Path(shutil.copytree(trained / "photos", tmp_path / "stranger"))
    names = sorted(path.name for path in stranger.iterdir())
    (stranger / names[0]).rename(stranger / "stranger")
    with pytest.raises(DataError, match="a class 'stranger' that the model does not know"):
        package.fit(plain, stranger)
    assert hashes(plain) == before
    result = package.fit(plain, stranger, allow_unknown=True, out=tmp_path / "few")
    notes = " ".join(result.notes)
    assert f"1 of 3 classes have no image here ({names[0]})" in notes
    assert "12 images of classes that the model does not know" in notes
    assert "only 4 images were held out" in notes
    other = draw_folder(tmp_path / "other", kinds=1, each=4)
    with pytest.raises(DataError):
        package.fit(plain, other)
    with pytest.raises(UsageError, match="inside the images"):
        package.fit(plain, trained / "photos", out=trained / "photos" / "new")


def test_several_labels(photos: Path, tmp_path: Path) -> None:
    run = multi_label_artifact(photos, tmp_path / "several")
    listed = tmp_path / "list.csv"
    rows = [f"{path},{'a|b' if i % 2 else 'c|d'}" for i, path in enumerate(photos.rglob("*.jpg"))]
    listed.write_text("\n".join(["path,labels", *rows]), encoding="utf-8")
    result = package.fit(run, listed)
    assert result.fitted.calibration is None and result.fitted.foreign is not None
    assert any("several labels" in line for line in result.lines())
    answer = package.load(result).predict(next(photos.rglob("*.jpg")))
    assert answer.foreign is not None and answer.unsure is False


def test_a_kill_between_leaves_the_artifact(
    trained: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hashes(plain)

    def full(*args: object, **settings: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifact.files, "write_tensors", full)
    with pytest.raises(Exception, match="disk is full"):
        package.fit(plain, trained / "photos")
    monkeypatch.undo()
    assert hashes(plain) == before
