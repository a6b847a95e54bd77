"""Files elsewhere are fetched once, make room for one another, and are missed with a sentence."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from vitral.errors import DataError, MachineError, UsageError
from vitral.storage import remote


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAL_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    system.pipe({f"/room/{name}.tar": name.encode() * 1000 for name in ("a", "b", "c")})
    yield system
    system.rm("/room", recursive=True)


def test_what_is_near_and_what_is_far(tmp_path):
    assert [remote.is_remote(p) for p in ("s3://b/x", "https://h/x", "memory://x")] == [True] * 3
    assert [remote.is_remote(p) for p in ("a/b", "/a", "file:///a", "hf:name")] == [False] * 4
    (tmp_path / "x").write_bytes(b"1")
    assert remote.local(f"file://{tmp_path}/x") == tmp_path / "x"
    with remote.opened(str(tmp_path / "x")) as file:
        assert file.read() == b"1"
    with pytest.raises(FileNotFoundError):
        remote.opened(str(tmp_path / "y"))


def test_a_file_is_fetched_once_for_everyone(bucket, monkeypatch):
    fetched = []
    real = remote._download
    monkeypatch.setattr(remote, "_download", lambda *given: (fetched.append(given), real(*given)))
    threads = [
        threading.Thread(target=remote.local, args=("memory://room/a.tar",)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1
    with remote.opened("memory://room/a.tar") as file:
        assert file.read() == b"a" * 1000


def test_the_least_recently_used_goes_first_and_comes_back(bucket, monkeypatch):
    monkeypatch.setenv("VITRAL_CACHE_GB", str(2_500 / 1e9))
    places = {name: remote.local(f"memory://room/{name}.tar") for name in "ab"}
    os.utime(places["b"], (1, 1))
    remote.local("memory://room/c.tar")
    assert places["a"].exists() and not places["b"].exists()
    with remote.opened("memory://room/b.tar") as file:
        assert file.read(1) == b"b"


def test_text_and_lists(bucket):
    bucket.pipe("/room/index.json", "{é}".encode())
    assert remote.text("memory://room/index.json") == "{é}"
    assert remote.text("memory://room/none.json") is None
    names = remote.list_files("memory://room", ".tar")
    assert names == [f"memory:///room/{name}.tar" for name in "abc"]
    assert remote.list_files("memory://nowhere", ".tar") == []
    assert remote.local(names[0]).read_bytes() == b"a" * 1000


@pytest.mark.parametrize(
    ("path", "kind", "sentence"),
    [
        ("memory://room/none.tar", DataError, "cannot be reached"),
        ("nosuchstore://b/x.tar", MachineError, "Protocol not known: nosuchstore"),
    ],
)
def test_what_cannot_be_had_is_said(bucket, path, kind, sentence):
    with pytest.raises(kind, match=sentence):
        remote.local(path)


def test_a_cache_without_a_place_is_said(tmp_path, bucket, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VITRAL_CACHE", str(tmp_path / "file"))
    with pytest.raises(MachineError, match="VITRAL_CACHE"):
        remote.local("memory://room/a.tar")


def test_patterns():
    assert remote.expand_braces("a.tar") == ["a.tar"]
    assert remote.expand_braces("a-{08..10}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar"]
    assert len(remote.expand_braces("{0..2}/{0..1}.tar")) == 6
    both = ["train-0.tar", "train-1.tar", "val-0.tar", "val-1.tar"]
    assert remote.expand_braces("{train,val}-{0..1}.tar") == both
    with pytest.raises(UsageError, match="from 3 down to 1"):
        remote.expand_braces("{3..1}.tar")


def test_another_file_in_its_place_is_fetched_once_it_is_asked_for_anew(bucket, monkeypatch):
    before = remote.local("memory://room/a.tar")
    bucket.pipe("/room/a.tar", b"z" * 1000)
    assert remote.local("memory://room/a.tar") == before, "a process sees one version"
    remote.forget(["memory://room/a.tar"])
    assert remote.local("memory://room/a.tar").read_bytes() == b"z" * 1000

    asked = []

    def unreachable(*_: object, **__: object) -> None:
        asked.append(1)
        raise OSError("no network")

    remote.forget(["memory://room/a.tar", "memory://room/b.tar"])
    monkeypatch.setattr(type(bucket), "info", unreachable)
    for _ in range(3):
        assert remote.local("memory://room/a.tar").read_bytes() == b"z" * 1000, "the last will do"
    assert len(asked) == 1
    with pytest.raises(DataError, match="no network"):
        remote.local("memory://room/b.tar")


def test_a_file_that_is_gone_is_not_read_from_the_cache(bucket):
    remote.local("memory://room/a.tar")
    bucket.rm("/room/a.tar")
    remote.forget(["memory://room/a.tar"])
    with pytest.raises(DataError, match=r"a\.tar cannot be reached"):
        remote.local("memory://room/a.tar")


class Web:
    """A web server: what it holds, and after how many bytes it breaks off."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[str, bytes]] = {}  # ETag and content
        self.breaks_after: int | None = None
        self.url = ""


@pytest.fixture
def web(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAL_CACHE", str(tmp_path / "cache"))
    state = Web()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path not in state.files:
                self.send_error(404)
                return
            etag, content = state.files[self.path]
            start = int((self.headers["Range"] or "bytes=0-")[6:-1])
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("ETag", etag)
            self.end_headers()
            self.wfile.write(content[start : state.breaks_after])

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        state.url = f"http://127.0.0.1:{running.server_port}"
        yield state
        running.shutdown()


def test_the_web_needs_no_driver(web, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    web.files = {"/a.tar": ("1", b"a" * 1000), "/index.json": ("1", "{é}".encode())}
    address = f"{web.url}/a.tar"
    place = remote.local(address)
    assert place.read_bytes() == b"a" * 1000 and place.name.endswith("-a.tar")
    web.files["/a.tar"] = ("2", b"b" * 1000)
    assert remote.local(address) == place
    remote.forget([address])
    assert remote.local(address).read_bytes() == b"b" * 1000
    assert remote.text(f"{web.url}/index.json") == "{é}"
    assert remote.text(f"{web.url}/none.json") is None
    del web.files["/a.tar"]
    remote.forget([address])
    with pytest.raises(DataError, match=r"a\.tar cannot be reached: HTTP Error 404"):
        remote.local(address)


def test_a_broken_connection_leaves_a_beginning_that_is_continued(web):
    web.files = {"/a.tar": ("1", bytes(range(256)) * 8000)}
    web.breaks_after = 1_100_000
    with pytest.raises(DataError, match="broke after 1 MB of 2 MB; the same command continues"):
        remote.local(f"{web.url}/a.tar")
    web.breaks_after = None
    assert remote.local(f"{web.url}/a.tar").read_bytes() == web.files["/a.tar"][1]


def test_a_disk_that_does_not_take_it(bucket, web, monkeypatch):
    web.files = {"/a.tar": ("1", b"a" * 1000)}
    usage = shutil.disk_usage("/")
    with monkeypatch.context() as small:
        small.setattr(shutil, "disk_usage", lambda _: usage._replace(free=999))
        for address in (f"{web.url}/a.tar", "memory://room/a.tar"):
            with pytest.raises(MachineError, match="kB are to come and 999 bytes are free"):
                remote.local(address)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(MachineError, match=r"No space left on device.*room in VITRAL_CACHE"):
        remote.local(f"{web.url}/a.tar")
