import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from vitral.errors import DataError, MachineError, UsageError
from vitral.training.distributed.process_group import (
    ProcessGroup,
    check_sharding,
    full,
    initialised,
    local,
)


def test_a_process_alone_has_nothing_to_wait_for() -> None:
    with initialised("cpu") as group:
        assert (group.rank, group.world_size, group.is_main) == (0, 1, True)
        assert group.all_reduce_sum(1.5, 2) == [1.5, 2]
        assert group.all_gather("a") == ["a"]
        assert group.broadcast({"b": 1}) == {"b": 1}
        group.barrier()
        with group.on_main() as main:
            assert main
    assert not dist.is_initialized()


def test_an_error_of_the_writer_is_raised() -> None:
    group = ProcessGroup(torch.device("cpu"))
    with pytest.raises(DataError, match="full"), group.on_main():
        raise DataError("full")


def test_a_torch_that_shards_on_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch 2.6, whose CPU has streams without events."""
    monkeypatch.setattr(torch.cpu.Stream, "record_event", lambda _: None, raising=False)
    check_sharding("cpu")
    monkeypatch.delattr(torch.cpu.Stream, "record_event")
    with pytest.raises(MachineError, match=r"^torch \S+ shares a network out on GPUs alone"):
        check_sharding("cpu")


def test_one_process_can_be_a_group_of_its_own() -> None:
    with initialised("cpu", alone=False) as group:
        assert dist.is_initialized()
        tensor = torch.arange(6.0).reshape(3, 2)
        shared = distribute_tensor(tensor, group.mesh())
        assert isinstance(shared, DTensor)
        assert local(shared).equal(tensor)
        assert full(shared).equal(tensor)
    assert not dist.is_initialized()
    plain = nn.Parameter(torch.ones(2))
    assert local(plain) is plain
    assert full(plain) is plain


def test_what_torchrun_should_have_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    missing = r"RANK, MASTER_ADDR, MASTER_PORT is not set.*torchrun"
    with pytest.raises(UsageError, match=missing), initialised("cpu"):
        pass
    with pytest.raises(MachineError, match="cannot be used"), initialised("cuda:99"):
        pass
