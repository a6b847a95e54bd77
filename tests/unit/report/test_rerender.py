"""A page written again: its pictures come back where the images are, and are missed aloud."""

import pytest
import torch

from vitral.data.datasets import open_dataset
from vitral.errors import DataError, UsageError
from vitral.evaluation import write_predictions
from vitral.loading import load
from vitral.model import build
from vitral.report import rerender
from vitral.specs import ImageSpec, ModelSpec
from vitral.weights import artifact
from vitral.weights.card import Card


@pytest.fixture
def run(photos, tmp_path):
    """What training leaves, without the training."""
    data = open_dataset(photos)
    spec = ModelSpec(
        name="tiny", size=32, patch=8, width=24, depth=1, heads=3, mlp_width=48, classes=3
    )
    torch.manual_seed(0)
    recipe = {"data": {"split_seed": 0, "val_fraction": 0.2, "count": None}}
    told = {"source": str(photos), "fingerprint": data.fingerprint}
    card = Card(
        model=spec,
        images=ImageSpec(size=(32, 32)),
        classes=data.classes,
        made_by={"recipe": recipe, "data": told},
    )
    artifact.save(tmp_path / "run" / "best", build(spec).state_dict(), card)
    evaluation = load(tmp_path / "run", device="cpu").evaluate(photos)
    assert evaluation.samples < 12  # what was held out, not all
    write_predictions(tmp_path / "run" / "predictions.csv", evaluation)
    return tmp_path / "run"


def test_with_the_images_as_they_were(run, tmp_path):
    said = []
    path = rerender(run, "ko", tmp_path / "a.html", device="cpu", announce=said.append)
    html = path.read_text(encoding="utf-8")
    assert said == []
    assert path == tmp_path / "a.html"
    assert '<html lang="ko">' in html
    assert html.count("data:image/") > 10
    again = rerender(run, "ko", tmp_path / "b.html", device="cpu", announce=said.append)
    assert again.read_bytes() == path.read_bytes()


def test_without_the_images_the_page_is_written_and_it_is_said(run, photos):
    said = []
    photos.rename(photos.with_name("elsewhere"))
    html = rerender(run, device="cpu", announce=said.append).read_text(encoding="utf-8")
    assert len(said) == 1
    assert str(photos) in said[0] and "no pictures" in said[0]
    assert "data:image/" not in html
    assert "Class by class" in html


def test_with_other_images_in_the_same_place(run, photos):
    said = []
    for i, path in enumerate(sorted(photos.rglob("*.jpg"))):
        path.rename(path.with_name(f"new{i}.jpg"))
    rerender(run, device="cpu", announce=said.append)
    assert said == [
        f"The page has no pictures: none of the images of predictions.csv is in {photos}."
    ]


def test_no_model_and_no_word_of_where_the_images_are(run):
    said = []
    (run / "best" / "model.json").unlink()
    rerender(run, device="cpu", announce=said.append)
    assert said == ["The page has no pictures: the run does not say which images it was scored on."]


def test_a_page_is_never_replaced_by_one_with_fewer_pictures(run, photos, tmp_path):
    said = []
    path = rerender(run, device="cpu", announce=said.append)
    rich = path.read_bytes()
    gone = [photo for photo in sorted(photos.rglob("*.jpg"))[::2] if photo.unlink() is None]
    with pytest.raises(
        DataError, match=r"(?s)report\.html has \d+ pictures and would have .* --out"
    ):
        rerender(run, device="cpu", announce=said.append)
    photos.rename(photos.with_name("elsewhere"))
    with pytest.raises(DataError, match=r"does not exist.* It stays as it is"):
        rerender(run, "ko", device="cpu", announce=said.append)
    assert path.read_bytes() == rich
    assert said == [] and gone
    poor = rerender(run, path=tmp_path / "poor.html", device="cpu", announce=said.append)
    assert len(said) == 1
    assert "data:image/" not in poor.read_text(encoding="utf-8")
    again = rerender(run, "ko", data=str(photos.with_name("elsewhere")), path=poor, device="cpu")
    assert "data:image/" in again.read_text(encoding="utf-8")


def test_what_is_refused(run, tmp_path):
    with pytest.raises(UsageError, match="en or ko"):
        rerender(run, "fr")
    with pytest.raises(DataError, match="is not a run folder"):
        rerender(tmp_path / "none")
    assert not (run / "report.html").exists()


def test_images_beside_the_old_ones_do_no_harm(run, photos):
    first = next(photos.rglob("*.jpg"))
    first.with_name("more.jpg").write_bytes(first.read_bytes())  # another fingerprint
    said = []
    html = rerender(run, device="cpu", announce=said.append).read_text(encoding="utf-8")
    assert said == []
    assert html.count("data:image/") > 10
