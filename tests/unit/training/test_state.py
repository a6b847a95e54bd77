from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from vitral import catalog
from vitral.errors import MachineError, WeightsError
from vitral.model import build
from vitral.training import state
from vitral.training.distributed.process_group import ProcessGroup
from vitral.training.ema import EMA
from vitral.training.optimizer import build as build_optimizer
from vitral.training.recipe import Optimizer
from vitral.training.state import Progress

ALONE = ProcessGroup(torch.device("cpu"))


def session(seed: int, steps: int) -> tuple[nn.Module, EMA, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = build(catalog.model("mu/16", size=32, classes=3))
    average, optimizer = EMA(model, 0.9), build_optimizer(model, Optimizer())
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 32, 32)).square().sum().backward()
        optimizer.step()
        average.update(model, step)
    return model, average, optimizer


def test_a_state_comes_back_whole(tmp_path: Path) -> None:
    model, average, optimizer = session(0, 3)
    tensors = state.gather(model, average, optimizer)
    assert any(name.endswith("/exp_avg_sq") for name in tensors)
    state.save(tmp_path, tensors, Progress(step=3, best_score=0.5, seconds=1.5), ALONE)
    loaded = state.load(tmp_path)
    assert loaded
    assert loaded[1] == Progress(step=3, best_score=0.5, seconds=1.5)

    other, other_average, other_optimizer = session(1, 0)
    state.scatter(loaded[0], other, other_average, other_optimizer)
    again = state.gather(other, other_average, other_optimizer)
    assert set(again) == set(tensors)
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_two_slots_in_turn_and_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    tensors = {"model/w": torch.arange(1000.0)}
    for step in (1, 2, 3):
        state.save(tmp_path, tensors, Progress(step=step), ALONE)
    files = {f"{slot}.safetensors" for slot in state.SLOTS}
    assert {path.name for path in tmp_path.iterdir()} == files
    newest = state.load(tmp_path)
    assert newest
    assert newest[1].step == 3

    slot = tmp_path / "a.safetensors"  # holds steps 1 and then 3
    content = bytearray(slot.read_bytes())
    content[-5] ^= 1
    slot.write_bytes(content)
    older = state.load(tmp_path)
    assert older
    assert older[1].step == 2

    slot.write_bytes(content[: len(content) // 2])
    assert state.load(tmp_path)
    (tmp_path / "b.safetensors").write_bytes(b"")
    assert state.load(tmp_path) is None


def test_no_state(tmp_path: Path) -> None:
    assert state.load(tmp_path / "nowhere") is None


def test_the_state_of_another_recipe_is_refused() -> None:
    model, average, optimizer = session(0, 1)
    tensors = state.gather(model, average, optimizer)
    wider = build(catalog.model("mu/8", size=32, classes=3))
    with pytest.raises(WeightsError, match="another recipe"):
        state.scatter(tensors, wider, EMA(wider, 0.9), build_optimizer(wider, Optimizer()))


def test_a_state_for_other_optimizers_keeps_their_tensors(tmp_path: Path) -> None:
    for kind in ("sgd", "lamb"):
        torch.manual_seed(0)
        model = build(catalog.model("mu/16", size=32, classes=3))
        average, optimizer = EMA(model, 0), build_optimizer(model, Optimizer(kind=kind))
        model(torch.randn(2, 3, 32, 32)).square().sum().backward()
        optimizer.step()
        state.save(tmp_path / kind, state.gather(model, average, optimizer), Progress(1), ALONE)
        loaded = state.load(tmp_path / kind)
        assert loaded
        other = build(catalog.model("mu/16", size=32, classes=3))
        fresh = build_optimizer(other, Optimizer(kind=kind))
        state.scatter(loaded[0], other, EMA(other, 0), fresh)
        images = torch.randn(2, 3, 32, 32)
        for network, moved in ((model, optimizer), (other, fresh)):
            moved.zero_grad()
            network(images).square().sum().backward()
            moved.step()
        assert all(map(torch.equal, model.parameters(), other.parameters()))


def test_where_the_newest_slot_stands(tmp_path: Path) -> None:
    assert state.progress_of(tmp_path) is None
    for step in (4, 9):
        state.save(tmp_path, {"model/w": torch.zeros(3)}, Progress(step=step), ALONE)
    found = state.progress_of(tmp_path)
    assert found
    assert found.step == 9


def test_a_full_disk_is_told_what_a_state_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **settings: object) -> None:  # safetensors leaves nothing to measure
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    tensors = {"model/w": torch.zeros(1_000_000), "optimizer/w/step": torch.ones(())}
    with pytest.raises(MachineError, match=r"a\.safetensors: 4\.00 MB are needed, .* are free"):
        state.save(tmp_path, tensors, Progress(step=1), ALONE)
    assert not list(tmp_path.iterdir())
