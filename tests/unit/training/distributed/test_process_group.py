from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from vitral.errors import DataError, MachineError, UsageError
from vitral.training.distributed.process_group import Ranks, joined, local, whole


def test_a_process_alone_has_nothing_to_wait_for() -> None:
    with joined("cpu") as ranks:
        assert (ranks.index, ranks.count, ranks.first) == (0, 1, True)
        assert ranks.sums(1.5, 2) == [1.5, 2]
        assert ranks.gathered("a") == ["a"]
        assert ranks.of_first({"b": 1}) == {"b": 1}
        ranks.wait()
        with ranks.writing() as first:
            assert first
    assert not dist.is_initialized()


def test_an_error_of_the_writer_is_raised() -> None:
    ranks = Ranks(torch.device("cpu"))
    with pytest.raises(DataError, match="full"), ranks.writing():
        raise DataError("full")


def test_one_process_can_be_a_group_of_its_own() -> None:
    with joined("cpu", alone=False) as ranks:
        assert dist.is_initialized()
        tensor = torch.arange(6.0).reshape(3, 2)
        shared = distribute_tensor(tensor, ranks.mesh())
        assert isinstance(shared, DTensor)
        assert local(shared).equal(tensor)
        assert whole(shared).equal(tensor)
    assert not dist.is_initialized()
    plain = nn.Parameter(torch.ones(2))
    assert local(plain) is plain
    assert whole(plain) is plain


def test_what_torchrun_should_have_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    missing = r"RANK, MASTER_ADDR, MASTER_PORT is not set.*torchrun"
    with pytest.raises(UsageError, match=missing), joined("cpu"):
        pass
    with pytest.raises(MachineError, match="cannot be used"), joined("cuda:99"):
        pass


def _two(rank: int, place: str) -> None:
    """What each of two processes finds, written to a file of its own."""
    dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2)
    ranks = Ranks(torch.device("cpu"), rank, 2)
    said = []
    try:
        with ranks.writing() as first:
            if first:
                raise DataError("the disk is full")
    except DataError as error:
        said.append(str(error))
    found = (
        ranks.sums(rank + 1, 0.5),
        ranks.gathered(f"process {rank}"),
        ranks.of_first(f"word of {rank}"),
        said,
        tuple(ranks.mesh().shape),
    )
    Path(place, str(rank)).write_text(repr(found))
    ranks.wait()
    dist.destroy_process_group()


def test_two_processes_tell_each_other(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_two, args=(str(tmp_path),), nprocs=2)
    expected = (
        [3.0, 1.0],
        ["process 0", "process 1"],
        "word of 0",
        ["the disk is full"],
        (2,),
    )
    for rank in range(2):
        assert (tmp_path / str(rank)).read_text() == repr(expected)
