"""No test here meets the network: the hub's cache is built by hand, the servers are local."""

import errno
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vitral.catalog.checkpoints import Checkpoint
from vitral.errors import MachineError, VitralError, WeightsError
from vitral.storage import cache
from vitral.weights import download
from vitral.weights.download import fetch, is_id

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "timm/vit_small_patch16_224.augreg_in21k_ft_in1k"
NOWHERE = "http://127.0.0.1:9"  # nothing listens there


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, no hub, no log-in and no progress bars."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("VITRAL_CACHE", str(tmp_path / "vitral"))
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(download.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(download.constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.chdir(tmp_path)


def store(files: dict[str, bytes], repo: str = REPO, ref: str = "main") -> Path:
    """The hub's cache layout: blobs, links to them in a snapshot, and a ref."""
    home = download.hub_cache() / f"models--{repo.replace('/', '--')}"
    snapshot = home / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    (home / "refs").mkdir()
    (home / "refs" / ref).write_text(COMMIT)
    for name, content in files.items():
        blob = home / "blobs" / hashlib.sha256(name.encode()).hexdigest()
        blob.write_bytes(content)
        (snapshot / name).symlink_to(blob)
    return snapshot


def silent(line: str) -> None:
    raise AssertionError(f"nothing is downloaded, so nothing is announced: {line}")


# ---- what an id is


@pytest.mark.parametrize(
    "text",
    [
        REPO,
        "google/vit-base-patch16-224",
        "someone/my-model@v1.0",
        "hf-hub:timm/x",
        "hf_hub:timm/x@refs/pr/1",
        "gs://vit_models/imagenet21k/ViT-B_16.npz",
        "torchvision/vit_b_16.IMAGENET1K_V1",
    ],
)
def test_ids(text: str) -> None:
    assert is_id(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "runs", "./a/b", "/a/b", "~/a", "a/b/c", "a\\b", "a/", "../b", "a b/c", "C:\\x"),
        *("weights/model.safetensors", "photos/x.npz", "gs://other/x.npz", "https://hub/a/b"),
    ],
)
def test_not_ids(text: str) -> None:
    assert not is_id(text)


def test_a_mistyped_path_is_no_id(tmp_path: Path) -> None:
    (tmp_path / "runs" / "first").mkdir(parents=True)
    assert not is_id("runs/first")
    assert not is_id("runs/frist")
    assert is_id("hf-hub:runs/frist")
    (tmp_path / "timm").mkdir()
    assert is_id(REPO) and not is_id("timm/unlisted")


# ---- the cache


@pytest.mark.parametrize(
    "weights",
    [
        ["model.safetensors"],
        ["pytorch_model.bin"],
        ["ViT-B_16.npz"],
        [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
        ],
    ],
)
@pytest.mark.parametrize("offline", [None, True])
def test_a_cached_id_needs_no_network(weights: list[str], offline: bool | None) -> None:
    snapshot = store(dict.fromkeys([*weights, "config.json"], b"x"))
    for id in (REPO, f"hf-hub:{REPO}", f"{REPO}@main", f"{REPO}@{COMMIT}"):
        assert fetch(id, announce=silent, offline=offline) == snapshot


def test_a_revision_is_its_own() -> None:
    snapshot = store({"model.safetensors": b"x", "config.json": b"{}"}, ref="v2")
    assert fetch(f"{REPO}@v2", announce=silent, offline=True) == snapshot
    with pytest.raises(MachineError, match="network may not be used"):
        fetch(REPO, announce=silent, offline=True)


def test_weights_without_their_config_are_used_when_there_is_no_network() -> None:
    snapshot = store({"model.safetensors": b"x"})  # as timm leaves them
    assert fetch(REPO, announce=silent, offline=True) == snapshot
    assert fetch(REPO, announce=silent) == snapshot


def test_home_and_environment_decide_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.setenv("HF_HOME", "~/elsewhere")
    assert download.hub_cache() == Path("~/elsewhere/hub").expanduser()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MachineError, match="network may not be used"):
        fetch(REPO, announce=silent)


@pytest.mark.parametrize("left", [["config.json"], ["model-00001-of-00002.safetensors"], []])
def test_half_a_download_does_not_count(left: list[str]) -> None:
    store(dict.fromkeys([*left, "model.safetensors.index.json"], b"{}"))
    with pytest.raises(MachineError) as error:
        fetch(REPO, announce=silent, offline=True)
    assert f"https://huggingface.co/{REPO}/resolve/main/model.safetensors" in str(error.value)
    assert "`vitral convert FOLDER OUT`" in str(error.value)


def test_a_link_to_an_unfinished_blob_does_not_count() -> None:
    snapshot = store({"model.safetensors": b"x", "config.json": b"{}"})
    (snapshot / "model.safetensors").resolve().unlink()
    with pytest.raises(MachineError, match="network may not be used"):
        fetch(REPO, announce=silent, offline=True)


def test_offline_names_the_file_of_the_table() -> None:
    with pytest.raises(MachineError, match=r"resolve/v3/pytorch_model\.bin"):
        fetch("facebook/deit-base-patch16-224@v3", announce=silent, offline=True)


# ---- a hub in this process


@dataclass
class Hub:
    """What the served hub holds and how it answers."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    refusal: tuple[int, str] | None = None
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def answer(self, code: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(code)
            for key, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            state.asked.append(f"{self.command} {path}")
            if state.refusal:
                self.answer(state.refusal[0], b"", {"X-Error-Code": state.refusal[1]})
            elif path.startswith(f"/api/models/{REPO}/revision/"):
                siblings = [{"rfilename": n, "size": len(c)} for n, c in state.files.items()]
                info = {"id": REPO, "sha": COMMIT, "siblings": siblings, "tags": []}
                info["cardData"] = {"license": "mit"}
                self.answer(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
            elif path.startswith(f"/api/models/{REPO}/tree/"):
                tree = [
                    {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                    for n, c in state.files.items()
                ]
                self.answer(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
            elif (name := path.rpartition("/")[2]) in state.files:
                content = state.files[name]
                etag = hashlib.sha1(content).hexdigest()
                self.answer(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
            else:
                self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})

        do_HEAD = do_GET

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("HF_ENDPOINT", state.url)
        yield state
        server.shutdown()


def test_a_download_is_announced_once_and_kept(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files = {
        "model.safetensors": b"w" * 2_400_000,
        "pytorch_model.bin": b"p" * 10,
        "config.json": b"{}",
        "README.md": b"read me",
    }
    said: list[str] = []
    folder = fetch(REPO, announce=said.append)
    assert said == [f"Downloading {REPO}: model.safetensors, 2 MB, licence mit."]
    assert {file.name for file in folder.iterdir()} == {"model.safetensors", "config.json"}
    assert (folder / "model.safetensors").read_bytes() == hub.files["model.safetensors"]
    hub.asked.clear()
    assert fetch(REPO, announce=silent) == folder
    assert hub.asked == []
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    assert fetch(REPO, announce=silent, offline=True) == folder


def test_shards_come_together_and_pickles_last(hub: Hub) -> None:
    shards = {f"model-0000{i}-of-00003.safetensors": b"w" for i in (1, 2, 3)}
    hub.files = {**shards, "model.safetensors.index.json": b"{}", "pytorch_model.bin": b"p"}
    said: list[str] = []
    folder = fetch(REPO, announce=said.append)
    assert {file.name for file in folder.iterdir()} == {*shards, "model.safetensors.index.json"}
    assert "model-00001-of-00003.safetensors and 3 more, 5 bytes" in said[0]


def test_a_missing_config_comes_without_new_weights(hub: Hub) -> None:
    snapshot = store({"pytorch_model.bin": b"p"})
    hub.files = {"pytorch_model.bin": b"p", "model.safetensors": b"w", "config.json": b"{}"}
    assert fetch(REPO, announce=silent) == snapshot
    assert {file.name for file in snapshot.iterdir()} == {"pytorch_model.bin", "config.json"}


@pytest.mark.parametrize(
    "names", [["README.md"], ["a.npz", "b.npz"], ["tf_model.h5", "flax_model.msgpack"], []]
)
def test_a_repository_without_weights_is_refused(hub: Hub, names: list[str]) -> None:
    hub.files = dict.fromkeys(names, b"x")
    with pytest.raises(WeightsError, match="has no weights that Vitral reads") as error:
        fetch(REPO, announce=silent)
    assert all(name in str(error.value) for name in names)


@pytest.mark.parametrize(
    ("id", "refusal", "kind", "words"),
    [
        (
            REPO,
            (403, "GatedRepo"),
            WeightsError,
            ["is gated", "accept its licence", "hf auth login"],
        ),
        (REPO, (404, "RevisionNotFound"), WeightsError, ["has no revision 'main'"]),
        (
            "timm/vit_smal_patch16_224.augreg_in21k_ft_in1k",
            (401, "RepoNotFound"),
            WeightsError,
            ["The hub has no timm/vit_smal", f"did you mean {REPO}?"],
        ),
        (
            REPO,
            (503, ""),
            MachineError,
            ["503", "resolve/main/model.safetensors", "vitral convert"],
        ),
        ("a--b/c..d", (404, ""), WeightsError, ["is no id of the hub"]),
    ],
)
def test_what_the_hub_refuses_is_a_sentence(
    hub: Hub, id: str, refusal: tuple[int, str], kind: type[VitralError], words: list[str]
) -> None:
    hub.refusal = refusal
    with pytest.raises(kind) as error:
        fetch(id, announce=silent)
    text = str(error.value)
    assert all(word in text for word in words), text
    assert "\n" not in text and "Traceback" not in text


def test_no_network_says_what_to_fetch_by_hand() -> None:
    with pytest.raises(MachineError) as error:
        fetch(REPO, announce=silent)
    text = str(error.value)
    assert "the hub did not give it (" in text and "\n" not in text
    assert f"https://huggingface.co/{REPO}/resolve/main/model.safetensors" in text


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "The disk is full"), (errno.EACCES, "Set HF_HOME to a folder")],
)
def test_a_disk_that_does_not_take_it(
    hub: Hub, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files = {"model.safetensors": b"w", "config.json": b"{}"}
    whole = download.HfApi.snapshot_download

    def fail(*args: object, **settings: object) -> str:
        if settings.get("local_files_only"):
            return str(whole(*args, **settings))
        raise OSError(code, "of the disk")

    monkeypatch.setattr(download.HfApi, "snapshot_download", fail)
    with pytest.raises(MachineError, match=words):
        fetch(REPO, announce=lambda _: None)


def test_too_small_a_disk_is_said_before_the_download(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files = {"model.safetensors": b"w" * 5_000_000}
    usage = download.shutil.disk_usage("/")
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage._replace(free=2_000_000))
    with pytest.raises(MachineError, match=r"needs 5 MB, but .* has 2 MB free"):
        fetch(REPO, announce=silent)


# ---- a file with an address


CONTENT = bytes(range(256)) * 20_000
GOOD = hashlib.sha256(CONTENT).hexdigest()[:8]


@dataclass
class Store:
    """A file server: what it holds, whether it breaks off, what was asked of it."""

    url: str = ""
    content: bytes = CONTENT
    breaks_after: int | None = None
    ranges: bool = True
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Store]:
    state = Store()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            state.asked.append(wanted)
            start = int(wanted[6:-1]) if wanted and state.ranges else 0
            if start >= len(state.content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(state.content) - start))
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(state.content[start : state.breaks_after])

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        state.url = f"http://127.0.0.1:{running.server_port}"
        yield state
        running.shutdown()


@pytest.fixture
def row(server: Store, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """The one known checkpoint: a torchvision file on the server."""
    known = Checkpoint(
        id="torchvision/vit_b_16.TEST",
        format="torchvision",
        model="vit_b_16",
        bytes=int(len(CONTENT) * 1.01),
        size=224,
        classes=1000,
        licence="bsd-3-clause",
        url=f"{server.url}/models/vit_b_16-{GOOD}.pth",
    )
    monkeypatch.setattr(download, "checkpoint", lambda id: known if id == known.id else None)
    return known


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix != ".lock"]


def test_a_url_is_downloaded_once(row: Checkpoint, server: Store) -> None:
    said: list[str] = []
    folder = fetch(row.id, announce=said.append)
    assert said == [f"Downloading {row.id}: vit_b_16-{GOOD}.pth, 5 MB, licence bsd-3-clause."]
    assert names(folder) == [row.file] and (folder / row.file).read_bytes() == CONTENT
    assert fetch(row.id, announce=silent) == folder
    assert fetch(row.id, announce=silent, offline=True) == folder
    assert server.asked == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_continued(row: Checkpoint, server: Store, ranges: bool) -> None:
    server.breaks_after = 3_000_000
    with pytest.raises(MachineError, match="the connection broke after 3 MB of 5 MB"):
        fetch(row.id, announce=lambda _: None)
    server.breaks_after, server.ranges = None, ranges
    folder = fetch(row.id, announce=lambda _: None)
    assert server.asked == [None, "bytes=3000000-"]
    assert names(folder) == [row.file] and (folder / row.file).read_bytes() == CONTENT


def test_leftovers_longer_than_the_file_are_thrown_away(row: Checkpoint, server: Store) -> None:
    folder = cache.folder() / "weights" / "torchvision--vit_b_16.TEST"
    folder.mkdir(parents=True)
    (folder / f".{row.file}.part").write_bytes(b"x" * (len(CONTENT) + 9))
    assert fetch(row.id, announce=lambda _: None) == folder
    assert (folder / row.file).read_bytes() == CONTENT


def test_damaged_leftovers_are_found_by_the_digest(row: Checkpoint, server: Store) -> None:
    folder = cache.folder() / "weights" / "torchvision--vit_b_16.TEST"
    folder.mkdir(parents=True)
    (folder / f".{row.file}.part").write_bytes(b"x" * 1000)
    with pytest.raises(WeightsError, match=f"is damaged: its SHA-256 begins with .*, not {GOOD}"):
        fetch(row.id, announce=lambda _: None)
    assert names(folder) == []
    assert (fetch(row.id, announce=lambda _: None) / row.file).read_bytes() == CONTENT


def test_a_page_is_no_weights(row: Checkpoint, server: Store) -> None:
    server.content = b"<html>Please log in to the network</html>" * 30
    with pytest.raises(
        WeightsError, match=r"answered with 1 kB instead of about 5 MB: a page of a proxy"
    ):
        fetch(row.id, announce=lambda _: None)
    assert names(cache.folder() / "weights" / "torchvision--vit_b_16.TEST") == []


def test_an_address_that_does_not_answer(row: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = replace(row, url=f"{NOWHERE}/vit.npz")
    monkeypatch.setattr(download, "checkpoint", lambda _: gone)
    with pytest.raises(MachineError) as error:
        fetch(row.id, announce=lambda _: None)
    assert f"{NOWHERE}/vit.npz cannot be reached" in str(error.value)
    assert "`vitral convert vit.npz OUT`" in str(error.value)


def test_an_address_offline(row: Checkpoint, server: Store) -> None:
    with pytest.raises(MachineError, match=f"network may not be used.*download {row.url}"):
        fetch(row.id, announce=silent, offline=True)
    assert server.asked == []


def test_a_cache_that_cannot_be_written(
    row: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VITRAL_CACHE", str(tmp_path / "file"))
    with pytest.raises(MachineError, match=r"cannot be kept in .* room in VITRAL_CACHE"):
        fetch(row.id, announce=lambda _: None)
