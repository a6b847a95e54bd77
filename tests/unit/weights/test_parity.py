import builtins
import importlib
import json
from pathlib import Path

import pytest
import torch

from checkpoints import HELD, of, said, save_artifact, store, tensors, theirs
from vitral.weights import parity
from vitral.weights.convert import convert
from vitral.weights.formats.base import NotComparableError
from vitral.weights.write import table_for

LIBRARIES = {"timm": "timm", "torchvision": "torchvision.models", "transformers": "transformers"}


def compared(format, spec, values=None, config=None):
    table = table_for(format, spec)
    file = theirs(format, spec)
    return parity.difference(table, spec, values or tensors(spec), file, config or {})


@pytest.mark.parametrize("format", ["timm", "torchvision"])
def test_the_same_network_gives_the_same_logits(format):
    pytest.importorskip("timm", reason="timm is an oracle of the dev extra")
    delta, largest = compared(format, HELD[format]["token"])
    assert delta < 1e-5 and largest > 0.1


def test_another_network_is_seen():
    pytest.importorskip("timm", reason="timm is an oracle of the dev extra")
    spec = HELD["timm"]["token"]
    values = tensors(spec)
    name = "blocks.0.attention.qkv.weight"
    swapped = torch.cat([values[name][part * 32 :][:32] for part in (1, 0, 2)])
    assert compared("timm", spec, {**values, name: swapped})[0] > 1e-2
    assert compared("timm", of(spec, gelu="tanh"))[0] < 1e-5


@pytest.mark.parametrize("format", LIBRARIES)
def test_a_missing_library_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    found = importlib.import_module

    def without(name: str, *rest: object) -> object:
        if name == LIBRARIES[format]:
            raise ImportError(f"No module named {name!r}")
        return found(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    spec = HELD[format]["eps" if format == "transformers" else "token"]
    path = store(tmp_path / "w.pth", theirs(format, spec))
    done = convert(path, tmp_path / "a", **said(spec))
    assert done.difference == {}
    assert done.not_compared == {
        format: f"{format} is not installed (No module named {LIBRARIES[format]!r})"
    }
    assert done.exact and (tmp_path / "a" / "model.json").exists()
    card = json.loads((tmp_path / "a" / "model.json").read_text())
    assert card["made_by"]["converted"]["not_compared"] == done.not_compared


def test_google_has_no_library(tmp_path):
    done = convert(
        store(tmp_path / "w.npz", theirs("google", HELD["google"]["token"])), tmp_path / "a"
    )
    assert done.not_compared == {"google": "google publishes no library that runs beside torch"}


def test_a_library_that_cannot_build_it_is_told(monkeypatch):
    pytest.importorskip("timm", reason="timm is an oracle of the dev extra")
    with pytest.raises(NotComparableError, match="timm could not run it: RuntimeError"):
        compared("timm", HELD["timm"]["token"], config={"architecture": "vit_base_patch16_224"})


@pytest.mark.parametrize("name", ["hf-hub:somebody/model", "local-dir:/etc", "no_such_model", ""])
def test_an_architecture_is_a_name_and_never_an_address(monkeypatch, name):
    timm = pytest.importorskip("timm", reason="timm is an oracle of the dev extra")

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("nothing is built, and nothing fetched")

    monkeypatch.setattr(timm, "create_model", never)
    with pytest.raises(NotComparableError, match=f"no architecture '{name}'"):
        compared("timm", HELD["timm"]["token"], config={"architecture": name})


def test_the_proof_leaves_the_random_numbers_alone():
    pytest.importorskip("timm", reason="timm is an oracle of the dev extra")
    spec = HELD["timm"]["token"]
    values, file = tensors(spec), theirs("timm", spec)
    before = torch.get_rng_state()
    first = parity.difference(table_for("timm", spec), spec, values, file, {})
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    assert parity.difference(table_for("timm", spec), spec, values, file, {}) == first


def test_an_artifact_alone_needs_no_library(tmp_path, monkeypatch):
    """Nothing of another library is imported on the way from an artifact to a Google file."""
    source = save_artifact(tmp_path / "a", HELD["google"]["token"])
    imported = builtins.__import__

    def never(name: str, *rest: object) -> object:
        assert name.partition(".")[0] not in ("timm", "transformers"), name
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", never)
    done = convert(source, tmp_path / "w.npz", to="google")
    assert done.exact is None and set(done.not_compared) == {"google"}
