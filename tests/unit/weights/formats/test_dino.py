"""DINO's and DINOv2's files: their heads, both files of a classifier, what a training saves."""

import argparse
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from checkpoints import DINO_LINEAR, HELD, of, same, save_artifact, store, stored, tensors, theirs
from vitral.errors import WeightsError
from vitral.weights import artifact
from vitral.weights.checkpoint_files import Source
from vitral.weights.convert import convert
from vitral.weights.formats import dino
from vitral.weights.read import read_weights
from vitral.weights.rename import tables
from vitral.weights.write import layout_for

SAID = {"size": (32, 32), "changes": ["model.heads=4"]}
CLASSIFIERS = ["classifier", "classifier of four blocks", "classifier, registers"]


def apart(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The backbone and the head as the authors publish them."""
    file = theirs("dino", HELD["dino"][name])
    file["backbone.mask_token"] = torch.randn(1, 32)
    backbone = {
        key.removeprefix("backbone."): x for key, x in file.items() if key.startswith("backbone.")
    }
    return backbone, {leaf: file[f"linear_head.{leaf}"] for leaf in ("weight", "bias")}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_two_files_of_one_folder_are_one_classifier(tmp_path: Path, name: str) -> None:
    backbone, head = apart(name)
    folder = tmp_path / "first"
    folder.mkdir()
    store(folder / "dinov2_vits14_pretrain.pth", backbone)
    store(folder / "dinov2_vits14_linear_head.pth", head)
    done = convert(folder, tmp_path / "ours", **SAID)
    assert done.exact and done.format == "dino"
    spec = HELD["dino"][name]
    values, card = artifact.load_tensors(tmp_path / "ours")
    assert of(card.model, name=spec.name) == spec
    assert same(values, tensors(spec))
    convert(tmp_path / "ours", tmp_path / "again", to="dino")
    assert same(stored(tmp_path / "again" / "backbone.pth"), backbone)
    assert same(stored(tmp_path / "again" / "linear_head.pth"), head)
    convert(tmp_path / "again", tmp_path / "b", **SAID)
    assert same(artifact.load_tensors(tmp_path / "b")[0], values)
    convert(tmp_path / "ours", tmp_path / "whole.pth", to="dino")
    assert same(stored(tmp_path / "whole.pth"), {**backbone, **head})
    convert(tmp_path / "whole.pth", tmp_path / "c", **SAID)
    assert same(artifact.load_tensors(tmp_path / "c")[0], values)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_head_reads_class_tokens_beside_the_mean(tmp_path: Path, name: str) -> None:
    """As `_LinearClassifierWrapper` of DINOv2's hubconf does, over our own tokens."""
    spec = HELD["dino"][name]
    folder = save_artifact(tmp_path / "a", spec)
    values, _ = artifact.load_tensors(folder)
    network = artifact.network({key: x.double() for key, x in values.items()}, spec)
    images = torch.randn(2, 3, 32, 32, dtype=torch.double)
    with torch.inference_mode():
        blocks = network.features(images, range(spec.depth + 1)).per_block
        last = [network.norm(blocks[spec.depth - back]) for back in range(spec.pool_blocks)][::-1]
        read = [x[:, 0] for x in last] + [last[-1][:, 1 + spec.registers :].mean(1)]
        expected = torch.cat(read, 1) @ values["head.weight"].double().T + values["head.bias"]
        assert (network(images) - expected).abs().max() < 1e-12


def test_a_head_alone_and_two_backbones(tmp_path: Path) -> None:
    backbone, head = apart("classifier")
    with pytest.raises(WeightsError, match=r"linear head alone.*one folder with the file of its"):
        read_weights(store(tmp_path / "head.pth", head))
    for name, second in (("two", backbone), ("three", head)):
        folder = tmp_path / name
        folder.mkdir()
        store(folder / "a.pth", backbone)
        store(folder / "b.pth", second)
        if name == "three":
            store(folder / "c.pth", head)
        with pytest.raises(WeightsError, match=r"holds several checkpoints"):
            read_weights(folder)


@pytest.mark.parametrize("width", [31, 32, 65])
def test_a_head_of_another_network_is_a_sentence(tmp_path: Path, width: int) -> None:
    backbone, head = apart("classifier")
    folder = tmp_path / "first"
    folder.mkdir()
    store(folder / "a.pth", backbone)
    store(folder / "b.pth", {**head, "weight": torch.ones(5, width)})
    with pytest.raises(WeightsError):
        read_weights(folder, **SAID)


def training(backbone: Mapping[str, Tensor]) -> dict[str, object]:
    """What DINO saves: student (wrapped), teacher, optimizer, loss, settings."""
    head = {
        "head.mlp.0.weight": torch.randn(8, 32),
        "head.mlp.0.bias": torch.randn(8),
        "head.last_layer.weight_g": torch.ones(6, 1),
        "head.last_layer.weight_v": torch.randn(6, 8),
    }
    teacher = {**backbone, **head}
    student = {f"module.{name}": x + 1 for name, x in teacher.items()}
    return {
        "student": student,
        "teacher": teacher,
        "optimizer": {"state": {0: {"step": torch.ones(())}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 3,
        "args": argparse.Namespace(arch="vit_small", lr=0.1, crops=[0.4, 1.0]),
        "dino_loss": {"center": torch.zeros(1, 6)},
    }


@pytest.mark.parametrize("name", ["token", "dinov2", "registers"])
def test_what_a_training_saved_gives_its_teacher(tmp_path: Path, name: str) -> None:
    spec = HELD["dino"][name]
    saved = training(theirs("dino", spec))
    torch.save(saved, tmp_path / "first.pth")
    done = convert(tmp_path / "first.pth", tmp_path / "ours", **SAID)
    assert done.exact and done.format == "dino"
    values, card = artifact.load_tensors(tmp_path / "ours")
    assert same(values, tensors(spec)) and card.model.classes == 0
    assert card.model.resample == ("timm" if spec.registers else "dino")
    convert(tmp_path / "ours", tmp_path / "again.pth", to="dino")
    assert same(stored(tmp_path / "again.pth"), saved["teacher"])


def test_the_settings_of_a_training_are_not_loaded(tmp_path: Path) -> None:
    """A class that nothing here knows is no reason to refuse the tensors beside it."""
    saved = training(theirs("dino", HELD["dino"]["token"]))
    saved["args"] = argparse.Namespace(path=Path("x"))
    torch.save(saved, tmp_path / "first.pth")
    weights = read_weights(tmp_path / "first.pth", **SAID)
    assert same(weights.tensors, tensors(HELD["dino"]["token"]))
    assert "beside it the file holds student.module" in " ".join(weights.notes)


def test_preprocessing_and_classes() -> None:
    images = dino.format.preprocessing(Source(path=Path("w.pth"), tensors={}), (224, 224))
    assert (int(224 / images.crop), images.interpolation) == (256, "bicubic")
    assert dino.format.classes({}, 1000)[0] == "tench"


def test_transformers_and_dinov2s_authors_exchange_their_classifiers(tmp_path: Path) -> None:
    first = store(tmp_path / "first.pth", theirs("dino", DINO_LINEAR))
    convert(first, tmp_path / "theirs", to="transformers", **SAID)
    convert(tmp_path / "theirs", tmp_path / "back.pth", to="dino")
    back, own = stored(tmp_path / "back.pth"), stored(first)
    assert same({name: back[name] for name in own}, own)


def test_an_oblong_backbone_goes_back_although_its_authors_code_wants_squares(
    tmp_path: Path,
) -> None:

    spec = of(HELD["dino"]["token"], size=(16, 32))
    table = tables()["dino_vit"]
    file = table.write(tensors(spec), spec.heads, layout_for(table, spec), {})
    first = store(tmp_path / "first.pth", file)
    convert(first, tmp_path / "ours", size=(16, 32), changes=["model.heads=4"])
    convert(tmp_path / "ours", tmp_path / "again.pth", to="dino")
    assert same(stored(tmp_path / "again.pth"), file)
    with pytest.raises(WeightsError, match="square images"):
        convert(save_artifact(tmp_path / "new", spec), tmp_path / "new.pth", to="dino")
