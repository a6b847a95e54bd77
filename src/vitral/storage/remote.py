"""Files that lie elsewhere (s3://…, https://…, memory://…), fetched once into the cache.

The web is read by the standard library, every other place by fsspec.
"""

from __future__ import annotations

import contextlib
import errno
import http
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import fsspec
from filelock import FileLock

from vitral.errors import DataError, MachineError, UsageError, VitralError
from vitral.storage import cache, files
from vitral.wording import byte_size

TIMEOUT_SECONDS = 15
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_WEB = re.compile(r"https?://", re.IGNORECASE)
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_PIECE = 1 << 20
# what another file in its place would not have in common: of a web server's answer all that tells,
# of fsspec's facts all but when the file was last read and by what name it was asked for
_TELLING = ("Content-Length", "ETag", "Last-Modified", "Content-MD5", "Digest")
_NOT_TELLING = ("name", "time", "atime", "last_access_time", "last_accessed_on", "accessTime")
_versions: dict[str, str] = {}  # of each file that this process has asked for


def is_remote(path: str) -> bool:
    """Tell whether a path names a file elsewhere."""
    return bool(_SCHEME.match(path)) and not path.startswith("file://")


def local(path: str) -> Path:
    """Find a file on this machine; one that lies elsewhere is fetched, once for all processes.

    Which version of it there is, is asked once in a process, or after `forget`. Where the place
    cannot be reached, the version that was fetched last will do.

    Raises DataError if there is none, MachineError if the cache does not take it.
    """
    if not is_remote(path):
        return Path(path.removeprefix("file://"))
    place = _place(path)
    if not place.exists():
        fetch(path, place, accept=lambda size: _make_room(place.parent, size))
    with contextlib.suppress(OSError):
        os.utime(place)  # what was used last goes last
    return place


def fetch(
    path: str,
    place: Path,
    *,
    accept: Callable[[int], None],
    check: Callable[[Path], None] | None = None,
) -> None:
    """Download a file to `place`, whole or not at all, in one process while others wait for it.

    What a kill or a broken connection left of a file of the web is continued.

    Args:
        path: where it lies.
        place: where it will lie on this machine.
        accept: called with how many bytes it has (0 if nobody says) before they come, to make
            room for them, or to refuse them with a VitralError.
        check: refuses what has come, as `accept` does; it is then thrown away.

    Raises DataError if it cannot be reached, MachineError if the disk does not take it.
    """
    part = place.with_name(f".{place.name}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.with_name(f".{place.name}.lock")):
            if place.exists():  # another process has fetched it meanwhile
                return
            with translating_errors(path):
                _download(path, part, accept)
            if check is not None:
                try:
                    check(part)
                except VitralError:
                    part.unlink()
                    raise
            part.replace(place)
    except OSError as error:
        raise MachineError(
            f"{path} cannot be kept in {place.parent} ({error.strerror or error}); name a place "
            f"with room in VITRAL_CACHE."
        ) from error


def forget(paths: Iterable[str]) -> None:
    """Let the version of these files be asked again, the next time that they are wanted."""
    for path in paths:
        _versions.pop(path, None)


def opened(path: str) -> BinaryIO:
    """Open a file to read; it is fetched again if it has just left the cache."""
    try:
        return local(path).open("rb")
    except FileNotFoundError:
        if not is_remote(path):
            raise
        return local(path).open("rb")


def text(path: str) -> str | None:
    """Read a small text file; None if it is not there."""
    with translating_errors(path):
        try:
            with _open_url(path) if _WEB.match(path) else fsspec.open(path, "rb") as file:
                return str(file.read(), "utf-8")
        except FileNotFoundError:
            return None


def list_files(folder: str, suffix: str) -> list[str]:
    """List the files with this suffix directly in a folder elsewhere, sorted; [] without one."""
    with translating_errors(folder):
        system, inside = fsspec.url_to_fs(folder)
        try:
            names = system.ls(inside, detail=False)
        except FileNotFoundError:
            return []
        return sorted(system.unstrip_protocol(name) for name in names if name.endswith(suffix))


def expand_braces(pattern: str) -> list[str]:
    """Write '{a,b}-{08..10}.tar' out as a-08.tar, a-09.tar and so on, as webdataset does."""
    if choice := _CHOICE.search(pattern):
        ends = pattern[: choice.start()], pattern[choice.end() :]
        return [path for word in choice[1].split(",") for path in expand_braces(word.join(ends))]
    numbers = _RANGE.search(pattern)
    if not numbers:
        return [pattern]
    first, last = numbers.groups()
    if int(last) < int(first):
        raise UsageError(f"{pattern} counts from {first} down to {last}; write it the other way.")
    return [
        path
        for number in range(int(first), int(last) + 1)
        for path in expand_braces(
            f"{pattern[: numbers.start()]}{number:0{len(first)}}{pattern[numbers.end() :]}"
        )
    ]


@contextlib.contextmanager
def translating_errors(path: str) -> Iterator[None]:
    """Turn what is raised on the way to a remote file into a sentence.

    Raises DataError, or MachineError where this machine lacks what it takes; an OSError that says
    that the disk is full is left as it is.
    """
    try:
        yield
    except VitralError:
        raise
    except (ImportError, ValueError) as error:  # no such protocol, or its library is missing
        raise MachineError(f"{path} cannot be opened: {error}") from error
    except Exception as error:  # every store has errors of its own
        if isinstance(error, OSError) and error.errno in files.NO_ROOM:
            raise
        raise DataError(f"{path} cannot be reached: {error or type(error).__name__}") from error


def _place(path: str) -> Path:
    """Name the place in the cache where this version of a file is or will be."""
    folder = cache.folder() / "fetched"
    key = cache.key_of([path])
    if path not in _versions:
        try:
            _versions[path] = _version(path)
        except DataError as error:
            copies = sorted(folder.glob(f"{key}-*"), key=lambda file: file.stat().st_mtime)
            if not copies or isinstance(error.__cause__, FileNotFoundError):
                raise
            _versions[path] = copies[-1].name.split("-")[1]
    return folder / f"{key}-{_versions[path]}-{PurePosixPath(path).name[-80:]}"


def _version(path: str) -> str:
    """Digest what is said of a file without reading it: another content, another digest.

    Not fsspec's `ukey`: that of the web is the address alone, and those of sftp and smb change
    when a file is read.
    """
    with translating_errors(path):
        if _WEB.match(path):
            with _open_url(path) as answer:  # a signed address refuses to tell without the file
                facts = [answer.headers[name] for name in _TELLING]
        else:
            system, inside = fsspec.url_to_fs(path)
            system.invalidate_cache()
            info = system.info(inside)
            facts = [(name, str(info[name])) for name in sorted(info) if name not in _NOT_TELLING]
    return cache.key_of(facts)[:8]


def _open_url(path: str, start: int = 0) -> Any:
    """Open an address of the web from byte `start` on; FileNotFoundError where there is none."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        request = urllib.request.Request(path, headers=headers)
        return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE):
            raise FileNotFoundError(str(error)) from None
        raise


def _download(path: str, part: Path, accept: Callable[[int], None]) -> None:
    """Complete `part`; from the web it continues what is there, where the server can."""
    if not _WEB.match(path):
        system, inside = fsspec.url_to_fs(path)
        size = system.size(inside) or 0
        accept(size)
        _check_space(part.parent, size)
        system.get_file(inside, str(part))
        return
    start = part.stat().st_size if part.exists() else 0
    try:
        answer = _open_url(path, start)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        part.unlink()  # it is as long as the file or longer, so it is not its beginning
        answer = _open_url(path)
    with answer:
        if answer.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0
        length = answer.headers["Content-Length"]
        size = start + int(length or 0)
        accept(size)
        _check_space(part.parent, size - start)
        with part.open("ab" if start else "wb") as file:
            shutil.copyfileobj(answer, file, _PIECE)
    part_size = part.stat().st_size
    if length and part_size != size:
        raise ConnectionError(
            f"the connection broke after {byte_size(part_size)} of {byte_size(size)}; "
            f"the same command continues"
        )


def _check_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        reason = f"{byte_size(size, 2)} are to come and {byte_size(free, 2)} are free"
        raise OSError(errno.ENOSPC, reason)


def _make_room(folder: Path, size: int) -> None:
    """Remove the least recently used files, so that `size` more bytes stay within the limit."""
    limit = float(os.environ.get("VITRAL_CACHE_GB", "64")) * 1e9
    copies = sorted(
        (path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")),
        key=lambda path: path.stat().st_mtime,
    )
    total = size + sum(path.stat().st_size for path in copies)
    for path in copies:
        if total <= limit:
            return
        total -= path.stat().st_size
        path.unlink(missing_ok=True)  # another process may have been quicker
