"""Files that lie elsewhere (s3://…, https://…, memory://…), fetched by fsspec into the cache."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import fsspec

from vitral.errors import DataError, MachineError, UsageError
from vitral.storage import cache

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
# What stores tell of a file that another file in its place would not have, in lower case.
_TELLING = (
    *("size", "etag", "mtime", "modify", "modified", "modificationtime", "lastmodified"),
    *("last_modified", "last-modified", "created", "updated", "generation", "versionid"),
    *("md5hash", "content-md5", "digest", "blob_id", "xet_hash"),
)
_versions: dict[str, str] = {}  # of each file that this process has asked for


def is_far(path: str) -> bool:
    """Whether a path names a file elsewhere."""
    return bool(_SCHEME.match(path)) and not path.startswith("file://")


def local(path: str) -> Path:
    """The file on this machine; one that lies elsewhere is fetched first, once for all processes.

    Which version of it is asked once in a process, or after `forget`. Where the place cannot be
    reached, the version that was fetched last will do. Raises DataError if there is none.
    """
    if not is_far(path):
        return Path(path.removeprefix("file://"))
    place = _place(path)
    try:
        if not place.exists():
            with _alone(place):
                if not place.exists():
                    _fetch(path, place)
        with contextlib.suppress(FileNotFoundError):
            os.utime(place)  # what was used last goes last
    except OSError as error:
        raise MachineError(
            f"{path} cannot be kept in {place.parent} ({error.strerror or error}); name a place "
            f"with room in VITRAL_CACHE."
        ) from error
    return place


def forget(paths: Iterable[str]) -> None:
    """Ask again which version of these files there is, the next time that they are wanted."""
    for path in paths:
        _versions.pop(path, None)


def opened(path: str) -> BinaryIO:
    """The file, open; fetched again if it has just left the cache."""
    try:
        return local(path).open("rb")
    except FileNotFoundError:
        if not is_far(path):
            raise
        return local(path).open("rb")


def text(path: str) -> str | None:
    """The content of a small file, or None if it is not there."""
    with reaching(path):
        try:
            with fsspec.open(path, "r", encoding="utf-8") as file:
                return str(file.read())
        except FileNotFoundError:
            return None


def listed(folder: str, suffix: str) -> list[str]:
    """The files with this suffix directly in a folder elsewhere, sorted; [] where none can be."""
    with reaching(folder):
        system, inside = fsspec.url_to_fs(folder)
        try:
            names = system.ls(inside, detail=False)
        except FileNotFoundError:
            return []
        return sorted(system.unstrip_protocol(name) for name in names if name.endswith(suffix))


def expanded(pattern: str) -> list[str]:
    """'{a,b}-{08..10}.tar' as a-08.tar, a-09.tar and so on: the notation of webdataset."""
    if choice := _CHOICE.search(pattern):
        ends = pattern[: choice.start()], pattern[choice.end() :]
        return [path for word in choice[1].split(",") for path in expanded(word.join(ends))]
    found = _RANGE.search(pattern)
    if not found:
        return [pattern]
    first, last = found.groups()
    if int(last) < int(first):
        raise UsageError(f"{pattern} counts from {first} down to {last}; write it the other way.")
    return [
        path
        for number in range(int(first), int(last) + 1)
        for path in expanded(
            f"{pattern[: found.start()]}{number:0{len(first)}}{pattern[found.end() :]}"
        )
    ]


@contextlib.contextmanager
def reaching(path: str) -> Iterator[None]:
    """Turn what fsspec raises into a sentence."""
    try:
        yield
    except (ImportError, ValueError) as error:  # no such protocol, or its library is missing
        raise MachineError(f"{path} cannot be opened: {error}") from error
    except (DataError, MachineError):
        raise
    except Exception as error:  # every store has errors of its own
        raise DataError(f"{path} cannot be reached: {error or type(error).__name__}") from error


def _place(path: str) -> Path:
    """Where in the cache this version of a file is or will be."""
    folder, key = cache.folder() / "fetched", cache.key_of([path])
    if path not in _versions:
        try:
            _versions[path] = _version(path)
        except DataError as error:
            kept = sorted(folder.glob(f"{key}-*"), key=lambda file: file.stat().st_mtime)
            if not kept or isinstance(error.__cause__, FileNotFoundError):
                raise
            _versions[path] = kept[-1].name.split("-")[1]
    return folder / f"{key}-{_versions[path]}-{PurePosixPath(path).name[-80:]}"


def _version(path: str) -> str:
    """Another one for each content, as far as the store tells."""
    with reaching(path):
        system, inside = fsspec.url_to_fs(path)
        system.invalidate_cache()
        told = {str(key).lower(): str(value) for key, value in system.info(inside).items()}
    return cache.key_of((fact, told[fact]) for fact in _TELLING if fact in told)[:8]


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_name(f".{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(path: str, place: Path) -> None:
    with reaching(path):
        system, inside = fsspec.url_to_fs(path)
        _make_room(place.parent, system.size(inside) or 0)
        with tempfile.TemporaryDirectory(dir=place.parent) as folder:
            fresh = Path(folder) / "fetched"
            system.get_file(inside, str(fresh))
            fresh.replace(place)


def _make_room(folder: Path, size: int) -> None:
    """Remove the least recently used files, so that `size` more bytes stay within the limit."""
    limit = float(os.environ.get("VITRAL_CACHE_GB", "64")) * 1e9
    kept = sorted(
        (path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")),
        key=lambda path: path.stat().st_mtime,
    )
    total = size + sum(path.stat().st_size for path in kept)
    for path in kept:
        if total <= limit:
            return
        total -= path.stat().st_size
        path.unlink()
