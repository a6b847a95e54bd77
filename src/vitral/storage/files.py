"""Files and folders that are whole or absent, whatever kills the process that writes them."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from safetensors import SafetensorError

from vitral.errors import MachineError, UsageError, VitralError
from vitral.wording import byte_size

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
READS = 20  # of a folder that another process keeps replacing
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_WRITING = ".writing"  # how the temporary neighbours of files end


def write_file(path: Path, write: Callable[[Path], object], needed: int = 0) -> None:
    """Let `write` fill a temporary neighbour of `path`, flush it to the disk and rename it.

    `needed`: the bytes of the content, where they are known, for the sentence about a full disk.

    Raises MachineError when the folder is read-only or the disk is full; `path` is then as before.
    """
    path = path.resolve()  # a link keeps pointing where it points
    if path.exists() and not path.is_file():  # a device or a pipe cannot be replaced
        _write_through(path, write, needed)
        return
    temporary = path.with_name(f".{path.name}{_WRITING}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        written = _bytes_on_disk(temporary)
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise write_error(error, path, needed, written) from None


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes as a whole file or not at all; raise as write_file does."""
    write_file(path, lambda temporary: temporary.write_bytes(content), needed=len(content))


def write_text(path: Path, text: str) -> None:
    """Write text as a whole UTF-8 file or not at all; what UTF-8 cannot hold is escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, values: Any) -> None:
    """Write plain values as a whole, indented JSON file or not at all; raise as write_file."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write rows as a whole CSV file (RFC 4180) or not at all; raise as write_file does."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    write_text(path, text.getvalue())


def write_arrays(
    path: Path, arrays: np.ndarray | Mapping[str, np.ndarray], *, compressed: bool = True
) -> None:
    """Write one array as a whole .npy file, or named arrays as a whole .npz file.

    Nothing is pickled. Raises as write_file does.
    """
    save: Any = np.savez_compressed if compressed else np.savez  # typed without room for names

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # to a path numpy would add a suffix
            if isinstance(arrays, np.ndarray):
                np.save(file, arrays, allow_pickle=False)
            else:
                save(file, **arrays)  # numpy before 2.1 would store `allow_pickle` as an array

    parts = [arrays] if isinstance(arrays, np.ndarray) else arrays.values()
    packed = compressed and not isinstance(arrays, np.ndarray)  # into fewer bytes, unknown before
    write_file(path, write, needed=0 if packed else sum(part.nbytes for part in parts))


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write one safetensors file in place: for use inside write_file and write_folder."""
    from safetensors.torch import save_file  # noqa: PLC0415 - other files are written without torch

    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(contiguous, path, metadata=dict(metadata or {}))
        path.chmod(0o666 & ~_umask())  # safetensors keeps its files from everyone else
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        raise OSError(int(code[1]) if code else errno.EIO, str(error)) from None


def write_folder(folder: Path, fill: Callable[[Path], object], needed: int = 0) -> None:
    """Let `fill` make a new folder beside `folder`, then put it in its place.

    A folder cannot be replaced in one step, so a kill between the two renames leaves the old one
    under `.NAME.old`, where `read_folder` finds it and from where the next write takes it back.
    Several processes that fill it together call `clear`, `fresh` and `publish` themselves. `needed`
    and errors are those of write_file.
    """
    try:
        clear(folder)
        fill(fresh(folder))
        publish(folder)
    except (OSError, MachineError) as error:
        written = _bytes_on_disk(fresh(folder))
        shutil.rmtree(fresh(folder), ignore_errors=True)
        if isinstance(error, MachineError):  # of a file in it, and a sentence already
            raise
        raise write_error(error, folder, needed, written) from None


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file, or a folder, a second place: the same bytes where the disk can, else a copy."""
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
        return
    try:
        os.link(source, target)
    except OSError:  # a disk without links, or one that forbids those of another's files
        shutil.copy2(source, target)


def fresh(folder: Path) -> Path:
    """Name the neighbour where the next content of `folder` is made."""
    return folder.with_name(f".{folder.name}.new")


def clear(folder: Path) -> None:
    """Make an empty place for the next content of `folder`."""
    recover(folder)
    shutil.rmtree(fresh(folder), ignore_errors=True)
    fresh(folder).mkdir(parents=True)


def publish(folder: Path) -> None:
    """Put what was made at `fresh` in the place of `folder`."""
    made = fresh(folder)
    old = _old(folder)
    for file in made.iterdir():
        _flush(file)
    _flush(made)
    if folder.exists():
        folder.rename(old)
    made.rename(folder)
    _flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Undo a write_folder that was killed between its two renames.

    For the one process that writes the folder: another would undo what that is doing just now.
    """
    old = _old(folder)
    if old.exists():
        if folder.exists():
            shutil.rmtree(old)
        else:
            old.rename(folder)


def current(folder: Path) -> Path:
    """Find where the content of a folder lies while it is being replaced; nothing is changed."""
    old = _old(folder)
    return old if not folder.exists() and old.is_dir() else folder


def read_folder(folder: Path, read: Callable[[Path], T]) -> T:
    """Return what `read` makes of a folder that another process may be replacing.

    `read` is given where the content lies, and is asked again if that was replaced meanwhile, so
    that all it read is of one version. Raises what it raises of a folder that stays as it is, and
    MachineError for one that never does.
    """
    for _ in range(READS):
        place, version = _version(folder)
        try:
            result = read(place)
        except (OSError, VitralError):
            if _version(folder) == (place, version):
                raise
        else:
            if _version(folder) == (place, version):
                return result
        time.sleep(0.05)
    raise MachineError(f"{folder} is replaced faster than it can be read. Try again in a moment.")


def _version(folder: Path) -> tuple[Path, tuple[int, ...]]:
    """Where the content lies, and what another content in that place would not have."""
    place = current(folder)
    try:
        facts = place.stat()
    except OSError:
        return place, ()
    return place, (facts.st_dev, facts.st_ino, facts.st_mtime_ns)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def is_unfinished(path: Path) -> bool:
    """Tell whether a file is what a kill left of a write_file."""
    return path.name.startswith(".") and path.name.endswith(_WRITING)


def refuse_existing(target: Path, ignored: Callable[[Path], bool] | None = None) -> None:
    """Raise UsageError if there is a file, or a folder with anything in it but what is `ignored`.

    What is there is never written over: an empty folder will do, another must be named otherwise.
    """
    if target.is_dir():
        if any(ignored is None or not ignored(file) for file in target.iterdir()):
            raise UsageError(f"{target} exists already and is not empty. Choose a new place.")
    elif target.exists():
        raise UsageError(f"{target} exists already. Choose a new place.")


def refuse_inside(target: Path, source: str) -> None:
    """Raise UsageError if `target` lies in the folder `source` of images, or is that folder."""
    data = Path(source)
    if data.is_dir() and target.resolve().is_relative_to(data.resolve()):
        raise UsageError(
            f"{target} lies inside the images in {data}, where it would become a class. Choose a "
            f"place outside of it."
        )


def nearest_parent(path: Path) -> Path:
    """Find the folder, or the file itself, on whose disk `path` is or would be."""
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    """Count the bytes that tensors take in a file; of sharded ones, all pieces together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def write_error(error: OSError, path: Path, needed: int = 0, written: int = 0) -> MachineError:
    """Make the sentence for an OSError met while writing `path`.

    `needed`: the bytes of all that was to be written, or 0; `written`: those that still found room.
    """
    if error.errno in NO_ROOM:
        free = shutil.disk_usage(nearest_parent(path)).free
        wanted = ""
        if needed:
            wanted = f"{byte_size(needed, 2)} are needed, "
        elif written:
            wanted = f"more than {byte_size(written, 2)} are needed, "
        return MachineError(
            f"The disk is full while writing {path}: {wanted}{byte_size(free, 2)} are free. Free "
            f"some space or write elsewhere; what was saved before is untouched."
        )
    if error.errno == errno.EFBIG:
        return MachineError(
            f"Cannot write {path}: files may not grow that large here (see `ulimit -f`). Raise the "
            f"limit or write elsewhere; what was saved before is untouched."
        )
    return MachineError(f"Cannot write {path}: {error.strerror or error}. Choose a writable place.")


def _bytes_on_disk(path: Path) -> int:
    """Count the bytes of a file, or of all files in a folder; 0 where there is none."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _write_through(path: Path, write: Callable[[Path], object], needed: int) -> None:
    if path.is_dir():
        raise MachineError(f"Cannot write {path}: it is a folder. Name a file in it.")
    with tempfile.TemporaryDirectory() as place:
        write(Path(place) / "content")
        try:
            with path.open("wb") as target:
                target.write((Path(place) / "content").read_bytes())
        except OSError as error:
            raise write_error(error, path, needed) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
