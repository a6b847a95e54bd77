"""Files and folders that are whole or absent, whatever kills the process that writes them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from vitral.errors import MachineError
from vitral.wording import byte_size

_WRITING = ".writing"  # how the temporary neighbours of files end


def write_file(path: Path, write: Callable[[Path], None], needed: int = 0) -> None:
    """Let `write` fill a temporary neighbour of `path`, flush it to the disk, then rename it.

    Raises MachineError when the folder is read-only or the disk is full; `path` is then as before.
    `needed` is told of a full disk: the bytes of the content, where they are known before.
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
        written = _held(temporary)
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise explained(error, path, needed, written) from None


def write_text(path: Path, text: str) -> None:
    """write_file for UTF-8 text."""
    write_file(path, lambda temporary: _write_text(temporary, text), needed=len(text))


def is_unfinished(path: Path) -> bool:
    """Whether the name is that of a file which a kill kept write_file from finishing."""
    return path.name.startswith(".") and path.name.endswith(_WRITING)


def bytes_of(tensors: Mapping[str, Tensor]) -> int:
    """What they take in a file; of sharded ones, all pieces together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """One safetensors file, written in place: for use inside write_file and write_folder."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(ready, path, metadata=dict(metadata or {}))
        path.chmod(0o666 & ~_umask())  # safetensors keeps its files from everyone else
    except SafetensorError as error:
        known = re.search(r"os error (\d+)", str(error))
        raise OSError(int(known[1]) if known else errno.EIO, str(error)) from None


def write_folder(folder: Path, fill: Callable[[Path], None], needed: int = 0) -> None:
    """Let `fill` make a new folder beside `folder`, then put it in its place.

    A folder cannot be replaced in one step, so a kill between the two renames leaves the old one
    under `.NAME.old`; `recover` puts it back. Several processes that fill it together call `clear`,
    `fresh` and `publish` themselves. `needed` is as for write_file.
    """
    try:
        clear(folder)
        fill(fresh(folder))
        publish(folder)
    except OSError as error:
        written = _held(fresh(folder))
        shutil.rmtree(fresh(folder), ignore_errors=True)
        raise explained(error, folder, needed, written) from None


def fresh(folder: Path) -> Path:
    """Where the next content of `folder` is made."""
    return folder.with_name(f".{folder.name}.new")


def clear(folder: Path) -> None:
    """An empty place for the next content of `folder`."""
    recover(folder)
    shutil.rmtree(fresh(folder), ignore_errors=True)
    fresh(folder).mkdir(parents=True)


def publish(folder: Path) -> None:
    """Put what was made at `fresh` in the place of `folder`."""
    made, old = fresh(folder), folder.with_name(f".{folder.name}.old")
    for file in made.iterdir():
        _flush(file)
    _flush(made)
    if folder.exists():
        folder.rename(old)
    made.rename(folder)
    _flush(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path) -> None:
    """Undo a write_folder that was killed between its two renames."""
    old = folder.with_name(f".{folder.name}.old")
    if old.exists():
        if folder.exists():
            shutil.rmtree(old)
        else:
            old.rename(folder)


def explained(error: OSError, path: Path, needed: int = 0, written: int = 0) -> MachineError:
    """The sentence for an OSError met while writing `path`.

    `needed`: the bytes of all that was to be written, or 0; `written`: those that still found room.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(_existing(path)).free
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
    return MachineError(
        f"Cannot write {path}: {error.strerror or error}. Choose a writable place (--out)."
    )


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())


def _held(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 where there is none."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _write_through(path: Path, write: Callable[[Path], None], needed: int) -> None:
    if path.is_dir():
        raise MachineError(f"Cannot write {path}: it is a folder. Name a file in it.")
    with tempfile.TemporaryDirectory() as place:
        write(Path(place) / "content")
        try:
            with path.open("wb") as target:
                target.write((Path(place) / "content").read_bytes())
        except OSError as error:
            raise explained(error, path, needed) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
