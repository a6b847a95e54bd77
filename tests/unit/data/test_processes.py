"""What loading processes hand over, whatever shared memory there is, and what ends them."""

import shutil
import signal
import sys
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch

from vitral.data import processes
from vitral.data.loader import Batch
from vitral.data.sources import Problem


def batch() -> Batch:
    views = (torch.arange(24, dtype=torch.uint8).view(2, 3, 2, 2), torch.zeros((0, 3, 4, 4)))
    labels = torch.tensor([[True, False], [False, False]])
    partner = Batch((views[0][:1],), labels[:1], torch.tensor([7]))
    failed = (Problem("a.jpg", "It is no picture."),)
    return Batch(views, labels, torch.tensor([3, 5]), failed, (0, 2), partner)


def same(a: Batch, b: Batch) -> bool:
    assert a.mix_partner is not None and b.mix_partner is not None
    pairs = [*zip(a.views, b.views, strict=True), (a.labels, b.labels), (a.indices, b.indices)]
    pairs.append((a.mix_partner.images, b.mix_partner.images))
    pairs.append((a.mix_partner.indices, b.mix_partner.indices))
    equal = all(torch.equal(x, y) and x.dtype == y.dtype for x, y in pairs)
    return equal and (a.failed, a.places) == (b.failed, b.places)


Usage = namedtuple("Usage", "total used free")


def test_a_batch_comes_as_it_was_by_shared_memory_and_by_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed = processes.hand_over(batch())
    assert isinstance(packed, bytes)
    assert same(processes.receive(packed), batch())
    monkeypatch.setattr(processes, "get_worker_info", lambda: SimpleNamespace(num_workers=2))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1000, 900, 100))
    packed = processes.hand_over(batch())
    assert isinstance(packed, processes.Copied)
    assert "100 bytes are free in /dev/shm" in packed.why and "--shm-size" in packed.why
    assert same(processes.receive(packed), batch())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("unable to allocate shared memory(shm)"), "unable to allocate"),
        (OSError("AF_UNIX path too long"), "TMPDIR is too long for the name of a socket"),
    ],
)
def test_what_goes_wrong_with_shared_memory_loses_no_batch(
    monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(processes.reduction.ForkingPickler, "dumps", fail)
    packed = processes.hand_over(batch())
    assert said in packed.why
    assert same(processes.receive(packed), batch())


def test_nothing_is_started_where_no_semaphore_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes.can_start() == ""

    def fail() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(processes.multiprocessing, "Lock", fail)
    assert "No space left on device; /dev/shm is full or missing" in processes.can_start()


def test_the_script_is_hidden_and_signals_wait_only_while_processes_start() -> None:
    main = sys.modules["__main__"]
    before = dict(vars(main))
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with processes.starting(object()):
        assert not hasattr(main, "__file__") and main.__spec__ is None
        assert set(processes.STOPS) <= signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert dict(vars(main)) == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == heard
    of_the_script = type("Reader", (), {"__module__": "__main__"})()
    with processes.starting(of_the_script):
        assert dict(vars(main)) == before


def test_the_end_of_a_loading_process_is_told_in_a_sentence_and_other_errors_are_left() -> None:
    killed = "DataLoader worker (pid 3) is killed by signal: Killed. "
    assert "(DataLoader worker (pid 3) is killed by signal: Killed)" in processes.lost(
        RuntimeError(killed)
    )
    for text in ("Caught RuntimeError in DataLoader worker process 0.", "mat1 and mat2"):
        assert processes.lost(RuntimeError(text)) == ""
