import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from vitral import catalog
from vitral.errors import MachineError, WeightsError
from vitral.model import build
from vitral.specs import Calibration, ImageSpec
from vitral.specs.tree import ClassTree
from vitral.weights import artifact
from vitral.weights.card import Card

SPEC = catalog.model("mu/16", size=32, classes=2)
CARD = Card(
    model=SPEC,
    images=ImageSpec(size=(32, 32), fit="pad"),
    classes=("고양이", "dog"),
    made_by={"recipe": {"seed": 3}},
    metrics={"accuracy": 0.5},
)


@pytest.mark.parametrize("name", ["mu/16", "mu/16x8", "R+Ti/16", "BiT-R26x1"])
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, name: str) -> None:
    spec = catalog.model(name, size=64, classes=2)
    model = build(spec)
    card = replace(CARD, model=spec)
    artifact.save(tmp_path / "a", model.state_dict(), card)
    loaded, read = artifact.load(tmp_path / "a")
    assert read == card
    assert not loaded.training
    assert all(
        torch.equal(tensor, loaded.state_dict()[key]) for key, tensor in model.state_dict().items()
    )
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), loaded(images))


def test_class_names_are_readable_in_the_file(tmp_path: Path) -> None:
    artifact.save(tmp_path / "a", build(SPEC).state_dict(), CARD)
    assert "고양이" in (tmp_path / "a" / "model.json").read_text(encoding="utf-8")
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"model.json", "model.safetensors", "README.md"}


def test_what_does_not_fit_is_not_saved(tmp_path: Path) -> None:
    tensors = build(SPEC).state_dict()
    other = build(catalog.model("mu/8", size=32, classes=2)).state_dict()
    with pytest.raises(WeightsError, match="has shape"):
        artifact.save(tmp_path / "a", other, CARD)
    with pytest.raises(WeightsError, match=r"Missing: cls. Unexpected: none."):
        artifact.save(tmp_path / "a", {k: v for k, v in tensors.items() if k != "cls"}, CARD)
    assert not (tmp_path / "a").exists()
    with pytest.raises(WeightsError, match="one name per logit"):
        replace(CARD, classes=("one",))


def test_many_wrong_keys_are_listed_short(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"and \d+ more. Unexpected: none"):
        artifact.save(tmp_path / "a", {}, CARD)


def test_locate(tmp_path: Path) -> None:
    for name in ("last", "best"):
        artifact.save(tmp_path / "run" / name, build(SPEC).state_dict(), CARD)
        assert artifact.locate(tmp_path / "run") == tmp_path / "run" / name
    assert artifact.locate(tmp_path / "run" / "last") == tmp_path / "run" / "last"
    (tmp_path / "run" / "best").rename(tmp_path / "run" / ".best.old")  # killed while saving
    assert artifact.locate(tmp_path / "run") == tmp_path / "run" / "best"
    with pytest.raises(WeightsError, match="does not exist"):
        artifact.locate(tmp_path / "nowhere")
    (tmp_path / "begun").mkdir()
    with pytest.raises(WeightsError, match="neither a run folder nor an artifact"):
        artifact.locate(tmp_path / "begun")
    (tmp_path / "begun" / "recipe.json").write_text("{}")
    with pytest.raises(WeightsError, match="--resume"):
        artifact.locate(tmp_path / "begun")


def test_a_card_alone(tmp_path: Path) -> None:
    artifact.save(tmp_path / "a", build(SPEC).state_dict(), CARD)
    assert artifact.load_card(tmp_path / "a") == CARD
    card = tmp_path / "a" / "model.json"
    values = json.loads(card.read_text(encoding="utf-8"))
    for wrong in ([], {**values, "images": {"size": 0}}, {**values, "classes": 3}):
        card.write_text(json.dumps(wrong))
        with pytest.raises(WeightsError, match=r"model\.json"):
            artifact.load_card(tmp_path / "a")


def test_a_calibration_is_there_or_absent(tmp_path: Path) -> None:
    tensors, fitted = (
        build(SPEC).state_dict(),
        Calibration(temperature=1.4, threshold=0.7, target=0.96, samples=360),
    )
    card = replace(CARD, calibration=fitted)
    artifact.save(tmp_path / "a", tensors, card)
    assert artifact.load_card(tmp_path / "a") == card
    path = tmp_path / "a" / "model.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    assert values["calibration"] == fitted.to_dict()
    for wrong in (None, {}, {**fitted.to_dict(), "temperature": 0}, {**fitted.to_dict(), "t": 1}):
        path.write_text(json.dumps({**values, "calibration": wrong}), encoding="utf-8")
        with pytest.raises(WeightsError, match=r"model\.json: .*Calibration"):
            artifact.load_card(tmp_path / "a")
    with pytest.raises(WeightsError, match="several labels have none"):
        replace(card, labels="several")


def test_groups_of_classes_are_there_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "a" / "model.json"
    artifact.save(tmp_path / "a", build(SPEC).state_dict(), CARD)
    assert "tree" not in json.loads(path.read_text(encoding="utf-8"))
    assert artifact.load_card(tmp_path / "a").tree is None
    tree = ClassTree(parents={CARD.classes[0]: "<b>새</b>"}, threshold=0.9)
    artifact.save(tmp_path / "a", build(SPEC).state_dict(), replace(CARD, tree=tree))
    assert artifact.load_card(tmp_path / "a").tree == tree
    values = json.loads(path.read_text(encoding="utf-8"))
    for broken in ({"parents": {"x": "x"}, "threshold": None}, {"parents": {}}, "bird", None):
        path.write_text(json.dumps(values | {"tree": broken}), encoding="utf-8")
        with pytest.raises(WeightsError, match=r"model\.json"):
            artifact.load_card(tmp_path / "a")
    with pytest.raises(WeightsError, match="several labels do not"):
        replace(CARD, tree=tree, labels="several")


def test_multi_labels_are_said_and_one_is_as_ever(tmp_path: Path) -> None:
    tensors = build(SPEC).state_dict()
    artifact.save(tmp_path / "one", tensors, CARD)
    written = json.loads((tmp_path / "one" / "model.json").read_text(encoding="utf-8"))
    assert set(written) == {"format", "model", "images", "classes", "made_by", "metrics"}
    multi_label = replace(CARD, labels="several")
    artifact.save(tmp_path / "several", tensors, multi_label)
    assert artifact.load_card(tmp_path / "several") == multi_label
    path = tmp_path / "several" / "model.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    assert values["labels"] == "several"
    for wrong in ("many", None, ["one"]):
        path.write_text(json.dumps({**values, "labels": wrong}), encoding="utf-8")
        with pytest.raises(WeightsError, match="labels"):
            artifact.load_card(tmp_path / "several")
    path.write_text(json.dumps({**values, "label": "one"}), encoding="utf-8")
    with pytest.raises(WeightsError, match=r"Unexpected: label\."):
        artifact.load_card(tmp_path / "several")


def test_a_full_disk_is_told_what_an_artifact_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **settings: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    kept = {"other": torch.zeros(3_000_000)}
    with pytest.raises(MachineError, match=r"best: 12\.\d+ MB are needed, .* are free"):
        artifact.save(tmp_path / "best", build(SPEC).state_dict(), CARD, kept)
    assert not list(tmp_path.iterdir())


def test_what_was_fitted_travels_beside_the_weights(tmp_path: Path) -> None:
    tensors = build(SPEC).state_dict()
    fitted = {"foreign.points": np.arange(6.0).reshape(2, 3), "foreign.limit": np.array(2.5)}
    artifact.save(tmp_path / "a", tensors, CARD, fitted=fitted)
    read = artifact.load_fitted(tmp_path / "a")
    assert set(read) == set(fitted)
    assert all(np.array_equal(read[name], array) for name, array in fitted.items())
    assert artifact.load_card(tmp_path / "a") == CARD  # without a word that others would refuse
    artifact.save(tmp_path / "old", tensors, CARD)
    assert artifact.load_fitted(tmp_path / "old") == {}
    (tmp_path / "a" / artifact.FITTED).write_bytes(b"{}")
    with pytest.raises(WeightsError, match=r"calibration.safetensors cannot be read .*vitral fit"):
        artifact.load_fitted(tmp_path / "a")


def test_what_is_fitted_later_leaves_the_network_and_other_files(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    artifact.save(folder, build(SPEC).state_dict(), CARD)
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("mine")
    weights = (folder / artifact.TENSORS).read_bytes()
    card = replace(CARD, metrics={"accuracy": 0.75})
    for value in (1.0, 2.0):
        artifact.save_fitted(folder, card, {"foreign.limit": np.array(value)})
        assert artifact.load_fitted(folder)["foreign.limit"] == value
    assert artifact.load_card(folder) == card
    assert (folder / artifact.TENSORS).read_bytes() == weights
    assert (folder / "notes" / "mine.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    artifact.save_fitted(folder, card, {})
    assert not (folder / artifact.FITTED).exists()
