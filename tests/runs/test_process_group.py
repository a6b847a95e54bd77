"""Processes that are started for it: what they tell each other, and how they end."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from vitral.errors import DataError
from vitral.training.distributed.launch import launch
from vitral.training.distributed.process_group import ProcessGroup


def _two(rank: int, place: str) -> None:
    """What each of two processes finds, written to a file of its own."""
    dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2)
    group = ProcessGroup(torch.device("cpu"), rank, 2)
    said = []
    try:
        with group.on_main() as main:
            if main:
                raise DataError("the disk is full")
    except DataError as error:
        said.append(str(error))
    found = (
        group.all_reduce_sum(rank + 1, 0.5),
        group.all_gather(f"process {rank}"),
        group.broadcast(f"word of {rank}"),
        said,
        tuple(group.mesh().shape),
    )
    Path(place, str(rank)).write_text(repr(found))
    group.barrier()
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


def test_the_exit_code_is_that_of_the_process_that_failed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    assert launch(1, ["models", "--json"]) == 0
    assert "B/16" in capfd.readouterr().out
    assert launch(1, ["predict", "nowhere", "x.jpg"]) == 4
