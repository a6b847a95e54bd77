"""Files with objects of unknown classes: the tensors are read, and nothing of the file runs."""

import argparse
import collections
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vitral.errors import WeightsError
from vitral.weights import checkpoint_files, stand_ins
from vitral.weights.stand_ins import StandIn


class Settings(dict[str, Any]):
    """As the dictionaries with attributes of many a training script."""


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.scale = nn.Parameter(torch.ones(2))
        self.register_buffer("passing", torch.ones(5), persistent=False)
        self.act = torch.nn.functional.gelu


class Part(torch.Tensor):
    """As the tensors of which each process holds a part."""


def test_a_tensor_of_another_class_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2).as_subclass(Part)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"of a class of their own.*full_state_dict"):
        checkpoint_files.read(tmp_path / "w.pth")


class Caller:
    """Whatever is asked of it, it would make a folder."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.makedirs, (str(self.where),)


@pytest.mark.parametrize("old", [False, True])
def test_settings_of_any_class(tmp_path: Path, old: bool) -> None:
    settings = {
        "args": argparse.Namespace(classes=["a", "b"], path=Path("x")),
        "counts": collections.defaultdict(list, {"a": [1]}),
        "best": np.float64(0.5),
        "history": np.arange(3),
        "dictionary": Settings(lr=1),
    }
    saved = {"state_dict": {"a": torch.ones(2)}, **settings}
    torch.save(saved, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
    read = stand_ins.load(tmp_path / "w.pth")
    assert torch.equal(read["state_dict"]["a"], torch.ones(2))
    assert isinstance(read["args"], StandIn) and read["args"].path == "argparse.Namespace"
    assert read["args"].values["classes"] == ["a", "b"]
    assert read["counts"] == {"a": [1]} and read["dictionary"] == {"lr": 1}
    assert list(checkpoint_files.read(tmp_path / "w.pth").tensors) == ["a"]


@pytest.mark.parametrize("old", [False, True])
def test_dictionaries_of_any_class_with_a_reader_that_does_not_look(
    tmp_path: Path, old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch 2.6 reads: it sets items without asking first what would take them."""
    reader = torch._weights_only_unpickler.Unpickler
    monkeypatch.setattr(reader, "_check_set_item_target", lambda *_: None, raising=False)
    many = collections.defaultdict(list, {"a": [1], "b": [2]})
    saved = {"state_dict": {"a": torch.ones(2)}, "many": many, "one": Settings(lr=1)}
    torch.save(saved, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
    read = stand_ins.load(tmp_path / "w.pth")
    assert read["many"] == {"a": [1], "b": [2]} and read["one"] == {"lr": 1}
    assert list(checkpoint_files.read(tmp_path / "w.pth").tensors) == ["a"]


def test_a_whole_module_gives_its_state_dict(tmp_path: Path) -> None:
    model = nn.DataParallel(Small())
    torch.save({"model": model}, tmp_path / "w.pt")
    found = checkpoint_files.read(tmp_path / "w.pt").tensors
    expected = model.module.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], x) for name, x in expected.items())


@pytest.mark.parametrize("old", [False, True])
def test_nothing_of_the_file_runs(tmp_path: Path, old: bool) -> None:
    target = tmp_path / "made"
    saved = {"a": torch.ones(2), "trap": Caller(target)}
    torch.save(saved, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
    allowed = set(torch.serialization.get_safe_globals())
    try:
        stand_ins.load(tmp_path / "w.pth")
    except Exception as error:
        assert "blocked" in str(error), "a module of the system is refused by torch"
    assert not target.exists()
    assert set(torch.serialization.get_safe_globals()) == allowed
