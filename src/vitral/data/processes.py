"""Loading processes: how they start, hand batches over, and end.

    with starting(reader):
        packed = iter(DataLoader(..., collate_fn=hand_over, worker_init_fn=begin))
    batch = receive(next(packed))

Batches come through shared memory where that works, and through pipes where it does not: a
container has 64 MB of /dev/shm, and a socket, by which memory is shared, cannot have a long name.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from multiprocessing import reduction, resource_tracker
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from vitral import machine
from vitral.errors import MachineError
from vitral.wording import byte_size

Note = Callable[[str], object]
SHARED = "/dev/shm"  # where Linux keeps shared memory
STOPS = (signal.SIGINT, signal.SIGTERM)  # which the parent answers for all
LAST_SECONDS = 60  # of a loading process that cannot tell who wants it to stop
_starts = threading.Lock()


@dataclass(frozen=True, slots=True)
class Copied:
    """A batch that came through a pipe: arrays in the place of tensors, and why."""

    batch: Any
    why: str


def can_start() -> str:
    """Return why this system lets no loading processes be started; "" where it does."""
    try:
        multiprocessing.Lock()  # a file in /dev/shm
    except OSError as error:
        return f"no semaphore can be made ({error.strerror or error}; {SHARED} is full or missing)"
    return ""


@contextlib.contextmanager
def starting(reader: object) -> Iterator[None]:
    """Start processes in this block that run no script of the user, and that no signal stops.

    Where processes are not forked, Python runs the user's script in each once more, which for a
    script without `if __name__ == "__main__"` would start processes without end. It does so by the
    name of the script, which is hidden meanwhile; a `reader` of a class of that script needs it.

    Ctrl-C and SIGTERM to a whole process group reach the loading processes, too. They begin with
    both blocked, from their first moment, since only their parent knows how to stop.
    """
    if start_method() != "fork":
        resource_tracker.ensure_running()  # as it starts, it would let signals through again
    with _starts:
        shown = {} if type(reader).__module__ == "__main__" else _hide_script()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            vars(sys.modules["__main__"]).update(shown)


def start_method() -> str:
    """Return how Python starts processes here: fork, spawn or forkserver."""
    chosen = multiprocessing.get_start_method(allow_none=True)
    return chosen or multiprocessing.get_all_start_methods()[0]


def _hide_script() -> dict[str, Any]:
    """Take from the main module what tells where it came from, and return that."""
    names = vars(sys.modules["__main__"])
    shown: dict[str, Any] = {x: names[x] for x in ("__file__", "__spec__") if x in names}
    names.pop("__file__", None)
    names["__spec__"] = None
    return shown


def begin(worker: int) -> None:
    """Begin a loading process: it stops when its parent says so or ends, and without a word."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    sys.excepthook = _unless_lost
    parent = multiprocessing.parent_process()
    # a fork server, which lives as long as the parent, does not stand between them
    if parent is not None and multiprocessing.get_start_method() != "forkserver":
        machine.die_with_parent()  # where it cannot, torch's own watch ends it within 5 seconds
        if os.getppid() != parent.pid:
            os._exit(1)  # the parent died before anybody listened
    threading.Thread(target=_wait_for_parent, name="stop", daemon=True).start()
    torch.set_num_threads(1)


def _wait_for_parent() -> None:
    """End this process at a SIGTERM of its parent's own, which waits for it to go."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if not hasattr(signal, "sigwaitinfo"):  # macOS does not tell whose signal it is
        signal.sigwait({signal.SIGTERM})
        time.sleep(LAST_SECONDS)
        os._exit(0)
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)


def _unless_lost(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """The thread that hands memory over would print how the parent hung up on it."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def hand_over(batch: Any) -> Any:
    """Pack a batch for the parent, here, where what goes wrong is told and not lost.

    torch would share the memory in a thread of its own, whose errors leave the parent waiting for a
    batch that never comes.
    """
    why = _no_room_for(sum(tensor.nbytes for tensor in _tensors(batch)))
    if not why:
        try:
            for tensor in _tensors(batch):
                if tensor.numel():
                    tensor.share_memory_()
            return bytes(reduction.ForkingPickler.dumps(batch))
        except (OSError, RuntimeError) as error:  # of the socket; of the memory
            why = str(error)
            if "AF_UNIX" in why:
                why = f"TMPDIR is too long for the name of a socket ({os.environ.get('TMPDIR')})"
    return Copied(_each(batch, Tensor, Tensor.numpy), why)


def receive(packed: Any) -> Any:
    """Unpack what `hand_over` packed; MachineError where shared memory cannot be had."""
    if isinstance(packed, Copied):
        return _each(packed.batch, np.ndarray, torch.from_numpy)
    if not isinstance(packed, bytes):  # read in this process
        return packed
    try:
        return reduction.ForkingPickler.loads(packed)
    except (OSError, EOFError, RuntimeError) as error:
        raise MachineError(
            f"A batch of a loading process cannot be taken over ({error}). If too many files are "
            f"open, raise the limit (ulimit -n), or read here: --set data.workers=0."
        ) from None


def lost(error: BaseException) -> str:
    """Say in a sentence that a loading process was ended by something else; "" for other errors."""
    text = str(error)
    if "DataLoader worker" not in text or "Caught" in text:  # the latter are errors of our own
        return ""
    what = text.strip().partition(". ")[0].rstrip(".")
    return (
        f"A loading process was ended by something else ({what}). Where memory is short the system "
        f"does so; close other programs, or read with fewer processes (--set data.workers=1)."
    )


def _no_room_for(size: int) -> str:
    """Why a batch of so many bytes does not go through shared memory; "" where it may.

    Every loading process may want as much at the same moment, and what else needs shared memory,
    such as the semaphores of the next loading processes, finds some left.
    """
    info = get_worker_info()
    try:
        free = shutil.disk_usage(SHARED).free
    except OSError:  # another system has no such place
        return ""
    if info is None or size * (info.num_workers + 1) <= free:
        return ""
    return (
        f"{byte_size(free)} are free in {SHARED}, for batches of {byte_size(size)}; a container "
        f"gets more by --shm-size=1g"
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in a batch."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _tensors(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


def _each(value: Any, kind: type, convert: Callable[[Any], Any]) -> Any:
    """A batch with everything of a kind in it converted."""
    if isinstance(value, kind):
        return convert(value)
    if isinstance(value, tuple):
        return tuple(_each(item, kind, convert) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        return replace(
            value, **{name: _each(getattr(value, name), kind, convert) for name in names}
        )
    return value
