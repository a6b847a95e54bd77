from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from checkpoints import HELD, theirs
from vitral.weights import names_in_settings
from vitral.weights.read import read_weights

THREE = ("cat", "개", 'a "dog"\n<b>')
SETTINGS = {
    "list": {"classes": list(THREE)},
    "tuple": {"hyper_parameters": {"class_names": THREE}},
    "numbers to names": {"hparams": {"id2label": dict(enumerate(THREE))}},
    "texts of numbers": {"id2label": {str(i): name for i, name in enumerate(THREE)}},
    "names to numbers": {"class_to_idx": {name: i for i, name in enumerate(THREE)}},
    "deep": {"meta": {"dataset_meta": {"CLASSES": THREE}}},
    "the nearest first": {"a": {"names": ["x", "y", "z"]}, "names": list(THREE)},
    "another count before": {"labels": ["x", "y"], "cfg": {"labels": list(THREE)}},
}
NONE = [
    {}, {"classes": 3}, {"classes": ["a", "b"]}, {"classes": ["a", "a", "b"]},
    {"classes": [1, 2, 3]},
    {"classes": {"a": 0, "b": 0, "c": 1}}, {"classes": {0: "a", 2: "b", 3: "c"}},
    {"classes": ["a", "b", ""]}, {"other": ["a", "b", "c"]},
    {"classes": {"a": [], "b": 1, "c": 2}},
]  # fmt: skip


@pytest.mark.parametrize("kind", SETTINGS)
def test_names_of_every_shape(kind: str) -> None:
    names, place = names_in_settings.find(SETTINGS[kind], 3)
    assert names == THREE and place


@pytest.mark.parametrize("settings", NONE, ids=range(len(NONE)))
def test_what_names_no_class(settings: dict[str, object]) -> None:
    assert names_in_settings.find(settings, 3) is None


def test_settings_that_hold_themselves() -> None:
    endless: dict[str, object] = {}
    endless["again"] = endless
    assert names_in_settings.find(endless, 3) is None


def test_lightnings_hyper_parameters_name_the_classes(tmp_path: Path) -> None:
    spec = HELD["timm"]["token"]
    state = OrderedDict((f"model.{name}", x) for name, x in theirs("timm", spec).items())
    names = [f"class {i}" for i in range(spec.classes)]
    for settings in ({"hyper_parameters": {"classes": names}}, {"args": Namespace(classes=names)}):
        torch.save({"state_dict": state, "epoch": 3, **settings}, tmp_path / "last.ckpt")
        weights = read_weights(tmp_path / "last.ckpt", size=(32, 32), changes=["model.heads=4"])
        assert weights.card.classes == tuple(names)
        assert "named by the file's own settings" in " ".join(weights.notes)
        assert "numbered" not in " ".join(weights.notes)
