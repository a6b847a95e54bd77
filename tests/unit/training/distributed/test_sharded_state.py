import copy
import errno
import json
import shutil
import traceback
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.distributed.checkpoint import CheckpointException
from torch.distributed.fsdp import FSDPModule

from vitral import catalog
from vitral.errors import MachineError
from vitral.model import ViT, build
from vitral.specs import ImageSpec
from vitral.training import state
from vitral.training.distributed import sharded_state, wrap
from vitral.training.distributed.process_group import ProcessGroup, full, initialised
from vitral.training.ema import EMA
from vitral.training.objectives import Objective
from vitral.training.optimizer import build as build_optimizer
from vitral.training.recipe import Optimizer
from vitral.training.state import Progress

ALONE = ProcessGroup(torch.device("cpu"))


def objective_of(network: ViT) -> Objective:
    return Objective(network, ImageSpec(size=(32, 32)), views=(), precision="fp32")


def test_written_read_and_noticed_when_damaged(tmp_path: Path) -> None:
    tensors = {"model/w": torch.arange(1000.0).reshape(10, 100), "optimizer/w/step": torch.ones(())}
    for step in (1, 2):
        sharded_state.write(tmp_path / "a", tensors, {"step": step}, ALONE)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert sharded_state.facts(tmp_path / "a") == {"step": 2}
    assert sharded_state.whole(tmp_path / "a")
    again = sharded_state.read(tmp_path / "a", None)
    assert set(again) == set(tensors)
    assert all(again[name].equal(tensor) for name, tensor in tensors.items())
    file = next((tmp_path / "a").glob("*.distcp"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert not sharded_state.whole(tmp_path / "a")
    (tmp_path / "a" / sharded_state.FACTS).write_text("{}")
    assert not sharded_state.whole(tmp_path / "a")
    sharded_state.remove(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_place_that_cannot_be_written_keeps_the_old_one(tmp_path: Path) -> None:
    sharded_state.write(tmp_path / "a", {"w": torch.ones(3)}, {"step": 1}, ALONE)
    (tmp_path / ".a.new").write_text("a file where the new folder belongs")
    with pytest.raises(MachineError, match="Cannot write"):
        sharded_state.write(tmp_path / "a", {"w": torch.zeros(3)}, {"step": 2}, ALONE)
    assert sharded_state.facts(tmp_path / "a") == {"step": 1}
    assert sharded_state.read(tmp_path / "a", None)["w"].equal(torch.ones(3))


@pytest.mark.parametrize("known", [True, False], ids=["errno", "an error of torch"])
def test_a_full_disk_is_told_what_all_pieces_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    def full(tensors: object, checkpoint_id: Path) -> None:
        (checkpoint_id / "piece").write_text("half")
        cause = OSError(errno.ENOSPC, "No space") if known else RuntimeError("unexpected pos")
        raise CheckpointException("write", {0: (cause, traceback.StackSummary())})

    def disk(path: Path) -> SimpleNamespace:
        return SimpleNamespace(free=3_000_000)

    monkeypatch.setattr(torch.distributed.checkpoint, "save", full)
    monkeypatch.setattr(shutil, "disk_usage", disk)
    tensors = {"a": torch.zeros(500_000), "b": torch.zeros(500_000)}
    with pytest.raises(MachineError, match=r"4\.00 MB are needed, 3\.00 MB are free"):
        sharded_state.write(tmp_path / "a", tensors, {"step": 1}, ALONE)
    assert not list(tmp_path.iterdir())
    if not known:
        with pytest.raises(MachineError, match=r"a: unexpected pos\. Choose"):
            sharded_state.write(tmp_path / "a", {"a": torch.zeros(3)}, {"step": 1}, ALONE)


@pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason="this torch shards on GPUs alone"
)
def test_a_sharded_state_is_read_by_a_whole_network_and_the_other_way_round(
    tmp_path: Path,
) -> None:
    """The run of a sharded network goes on in a whole one, and back, at the same bits."""
    torch.manual_seed(0)
    reference = build(catalog.model("mu/16", size=32, classes=3))
    images = torch.randn(4, 3, 32, 32)

    def moved(network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()

    with initialised("cpu", alone=False) as group:
        sharded = copy.deepcopy(reference)
        wrap.shard(objective_of(sharded), group, bf16=False)
        assert isinstance(sharded, FSDPModule)
        average, optimizer = EMA(sharded, 0.9), build_optimizer(sharded, Optimizer())
        moved(sharded, optimizer)
        average.update(sharded, 0)
        state.save(tmp_path, state.gather(sharded, average, optimizer), Progress(step=1), group)
        assert (tmp_path / "a").is_dir()

        plain = build(catalog.model("mu/16", size=32, classes=3))
        its = (EMA(plain, 0.9), build_optimizer(plain, Optimizer()))
        loaded = state.load(tmp_path)
        assert loaded
        state.scatter(loaded[0], plain, *its)
        moved(sharded, optimizer)
        moved(plain, its[1])
        for name, value in plain.state_dict().items():
            assert full(sharded.state_dict()[name]).equal(value), name
        for name, value in its[0].tensors.items():
            assert full(average.tensors[name]).equal(value), name

        state.save(tmp_path, state.gather(plain, *its), Progress(step=2), group)
        assert (tmp_path / "b.safetensors").is_file()
        for step in (2, 1):  # the whole slot, then the sharded one
            other = build(catalog.model("mu/16", size=32, classes=3))
            wrap.shard(objective_of(other), group, bf16=False)
            own = (EMA(other, 0.9), build_optimizer(other, Optimizer()))

            def like(name: str, scalar: bool, held=other, averaged=own[0]) -> torch.Tensor:
                return state.target(name, scalar, held, averaged)

            loaded = state.load(tmp_path, like)
            assert loaded
            assert loaded[1].step == step
            state.scatter(loaded[0], other, *own)
            moved(other, own[1])
            (tmp_path / "b.safetensors").unlink(missing_ok=True)
            if step == 1:
                for name, value in plain.state_dict().items():
                    assert full(other.state_dict()[name]).equal(value), name
        record = json.loads((tmp_path / "a" / sharded_state.FACTS).read_text())
        assert record["facts"]["step"] == 1
