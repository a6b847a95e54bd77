import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vitral import catalog
from vitral.model import build
from vitral.specs import ImageSpec
from vitral.weights import artifact

Vitral = Callable[..., tuple[int, str, str]]


def saved(folder: Path) -> Path:
    torch.manual_seed(0)
    spec = catalog.model("Ti/16", size=32, depth=2, classes=3, gelu="erf")
    card = artifact.Card(model=spec, images=ImageSpec(size=(32, 32)), classes=("소", "b", "c"))
    artifact.save(folder, build(spec).state_dict(), card)
    return folder


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is an oracle of the dev extra")
def test_there_and_back(vitral: Vitral, tmp_path: Path) -> None:
    code, out, err = vitral("convert", saved(tmp_path / "a"), tmp_path / "b", "--to", "timm")
    assert code == 0, err
    assert "logits    as timm computes them: max |difference|" in out
    assert {path.name for path in (tmp_path / "b").iterdir()} == {
        "config.json",
        "model.safetensors",
        "proof.json",
    }
    code, out, err = vitral("convert", tmp_path / "b", tmp_path / "c", "--json")
    assert code == 0, err
    proof = json.loads(out)
    assert proof["exact"] is True
    assert proof["left_over"] == 0
    assert proof["difference"]["timm"] < 1e-5
    assert artifact.load_card(tmp_path / "c").classes == ("소", "b", "c")
    first, last = (load_file(tmp_path / name / artifact.TENSORS) for name in "ac")
    assert first.keys() == last.keys()
    assert all(torch.equal(first[name], last[name]) for name in first)


def test_one_sentence_and_its_exit_code(vitral: Vitral, tmp_path: Path) -> None:
    weights = saved(tmp_path / "a")
    code, _, err = vitral("convert", weights, tmp_path / "b.npz", "--to", "google")
    assert code == 4
    assert "model.gelu" in err
    assert not list(tmp_path.glob("b*"))
    code, _, err = vitral("convert", weights, tmp_path / "b", "--to", "keras")
    assert code == 2
    assert "no format 'keras'" in err
    code, _, err = vitral("convert", weights, weights)
    assert code == 2
    assert "exists already" in err
    (tmp_path / "page.npz").write_text("<!doctype html><html></html>")
    code, _, err = vitral("convert", tmp_path / "page.npz", tmp_path / "b")
    assert code == 4
    assert "web page" in err


def test_every_verb_reads_other_homes(vitral: Vitral, photos: Path, tmp_path: Path) -> None:
    vitral("convert", saved(tmp_path / "a"), tmp_path / "b", "--to", "timm")
    picture = next(photos.rglob("*.jpg"))
    code, out, err = vitral("predict", tmp_path / "b", picture, "--json")
    assert code == 0, err
    assert json.loads(out)["results"][0]["label"] in ("소", "b", "c")
