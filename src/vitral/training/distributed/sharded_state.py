"""A slot whose tensors are shared out among processes, by torch's distributed checkpoint.

    write(folder, tensors, facts, group)    every process its pieces; the folder is whole or absent
    read(folder, like)                      by any number of processes, or by one

folder/: .metadata and *.distcp are torch's; facts.json holds what was given and a digest per file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitral.errors import WeightsError
from vitral.storage import files
from vitral.training.distributed.process_group import ProcessGroup

FACTS = "facts.json"
HEADER = 2000  # bytes that torch writes with each tensor, about


def write(
    folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], group: ProcessGroup
) -> None:
    """All processes together: a new folder in the place of the old one, once all have written."""
    from torch.distributed.checkpoint import save  # a second, for sharding alone

    fresh = files.fresh(folder)
    needed = files.bytes_of(tensors) + HEADER * len(tensors)
    with group.on_main() as main, _explained(folder, needed):
        if main:
            files.clear(folder)
    with group.on_main(), _explained(folder, needed), _quietly():
        save(dict(tensors), checkpoint_id=fresh)
    with group.on_main() as main, _explained(folder, needed):
        if main:
            digests = {path.name: _digest(path) for path in fresh.iterdir()}
            text = json.dumps({"facts": dict(facts), "digests": digests})
            files.write_text(fresh / FACTS, text)
            files.publish(folder)


def facts(folder: Path) -> dict[str, Any]:
    """Return what was given to `write`; OSError, KeyError or ValueError when it cannot be read."""
    content: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))["facts"]
    return content


def whole(folder: Path) -> bool:
    """Return whether every file is as it was written."""
    try:
        digests = json.loads((folder / FACTS).read_text(encoding="utf-8"))["digests"]
        return bool(digests) and all(_digest(folder / name) == d for name, d in digests.items())
    except (OSError, KeyError, ValueError, AttributeError):
        return False


def read(folder: Path, like: Callable[[str, bool], Tensor] | None) -> dict[str, Tensor]:
    """The tensors, each sharded as `like(name, scalar)` is; whole ones without it.

    All processes of a group call it together.
    """
    from torch.distributed.checkpoint import FileSystemReader, load
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    described = FileSystemReader(folder).read_metadata().state_dict_metadata
    tensors: dict[str, Tensor] = {}
    for name, entry in described.items():
        if not isinstance(entry, TensorStorageMetadata):
            raise WeightsError(f"{folder} holds '{name}', which is no tensor.")
        if like is None:
            tensors[name] = torch.empty(entry.size, dtype=entry.properties.dtype)
        else:
            tensors[name] = like(name, not entry.size)
    with _quietly():
        load(tensors, checkpoint_id=folder)
    return tensors


def remove(folder: Path) -> None:
    """The folder, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """torch warns that a single process reads or writes alone, which is what is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is disabled, unavailable or uninitialized")
        yield


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@contextlib.contextmanager
def _explained(folder: Path, needed: int) -> Iterator[None]:
    """MachineError for what the disk refused; torch's checkpoint wraps one error per process.

    It raises when all processes have ended their writing, so what they wrote can go.
    """
    from torch.distributed.checkpoint import CheckpointException

    try:
        yield
    except (OSError, CheckpointException) as error:
        causes: list[object] = [error]
        for failure in getattr(error, "failures", {}).values():
            causes.append(failure[0] if isinstance(failure, tuple) else failure)
        disk_error = next((cause for cause in causes if isinstance(cause, OSError)), None)
        remove(files.fresh(folder))
        disk_error = disk_error or _guessed(causes[-1], folder, needed)
        raise files.write_error(disk_error, folder, needed) from None


def _guessed(cause: object, folder: Path, needed: int) -> OSError:
    """torch ends a file on a full disk with an error of its own, which tells nothing of it."""
    full = shutil.disk_usage(folder.parent).free < needed
    return OSError(errno.ENOSPC if full else errno.EIO, str(cause))
