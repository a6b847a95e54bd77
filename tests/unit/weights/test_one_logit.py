"""A head with one logit is two classes with the same probability."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from checkpoints import HELD, store, tensors, theirs
from vitral.weights import artifact, one_logit
from vitral.weights.convert import convert
from vitral.weights.read import read_weights

SAID = {"size": (32, 32), "changes": ["model.heads=4"]}


@pytest.mark.parametrize(
    ("format", "name"),
    [("timm", "token"), ("timm", "distilled"), ("torchvision", "token"), ("google", "token")],
)
def test_the_softmax_of_two_is_the_sigmoid_of_one(tmp_path: Path, format: str, name: str) -> None:
    spec = replace(HELD[format][name], classes=1)
    suffix = ".npz" if format == "google" else ".pth"
    path = store(tmp_path / f"w{suffix}", theirs(format, spec))
    done = convert(path, tmp_path / "a", **SAID)
    assert done.exact and "one logit" in " ".join(done.notes)
    values, card = artifact.load_tensors(tmp_path / "a")
    assert card.classes == ("0", "1") and card.model.classes == 2 and card.labels == "one"
    images = torch.randn(4, 3, 32, 32, dtype=torch.double)
    with torch.inference_mode():
        one = artifact.network({k: x.double() for k, x in tensors(spec).items()}, spec)(images)
        two = artifact.network({k: x.double() for k, x in values.items()}, card.model)(images)
    assert (two.softmax(1)[:, 1] - one.sigmoid()[:, 0]).abs().max() < 1e-12
    assert not two[:, 0].any()
    convert(tmp_path / "a", tmp_path / "b", to=format)
    assert artifact.load_card(tmp_path / "a").model.classes == 2


def test_undone() -> None:
    values = tensors(replace(HELD["timm"]["distilled"], classes=1))
    back = one_logit.as_one(one_logit.as_two(values))
    assert back.keys() == values.keys()
    assert all(torch.equal(back[name], x) for name, x in values.items())
    assert one_logit.names_of_two(("cat",)) == ("not cat", "cat")
    assert one_logit.names_of_two(("cat", "dog")) == ("cat", "dog")
    assert one_logit.names_of_two(None) == ("0", "1")


def test_names_come_from_the_file(tmp_path: Path) -> None:
    file = theirs("timm", replace(HELD["timm"]["token"], classes=1))
    for settings, expected in (
        ({"hyper_parameters": {"class_names": ["cat", "dog"]}}, ("cat", "dog")),
        ({"class_to_idx": {"dog": 1, "cat": 0}}, ("cat", "dog")),
        ({"classes": ["dog"]}, ("not dog", "dog")),
        ({}, ("0", "1")),
    ):
        torch.save({"state_dict": file, **settings}, tmp_path / "w.ckpt")
        assert read_weights(tmp_path / "w.ckpt", **SAID).card.classes == expected


def test_one_class_among_several_that_may_hold_stays_one(tmp_path: Path) -> None:
    spec = replace(HELD["transformers"]["token"], classes=1)
    store(tmp_path / "model.safetensors", theirs("transformers", spec))
    config = {"model_type": "vit", "hidden_size": 32, "num_attention_heads": 4, "image_size": 32,
              "patch_size": 8, "num_hidden_layers": 2, "id2label": {"0": "cat"},
              "architectures": ["ViTForImageClassification"], "intermediate_size": 48}  # fmt: skip
    for kind, classes, labels in (
        ("multi_label_classification", ("cat",), "several"),
        (None, ("not cat", "cat"), "one"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, "problem_type": kind}))
        card = read_weights(tmp_path).card
        assert (card.classes, card.labels) == (classes, labels)
    done = convert(tmp_path, tmp_path / "a")
    assert done.exact
    pytest.importorskip("transformers", reason="transformers is an oracle of the dev extra")
    assert done.difference["transformers"] < 1e-5
