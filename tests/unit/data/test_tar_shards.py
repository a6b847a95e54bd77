"""Shards of others, and what they are read as; our own are in test_images_packing."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from vitral.data import tar_shards
from vitral.data.datasets import open_dataset
from vitral.data.tar_shards import Shards
from vitral.errors import DataError


def png(index: int) -> bytes:
    buffer, dice = io.BytesIO(), np.random.default_rng(index)
    noise = dice.integers(0, 256, (10, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def samples(first: int, count: int) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for index in range(first, first + count):
        files[f"s/{index:04}.png"] = png(index)
        files[f"s/{index:04}.cls"] = str(index % 2).encode()
    return files


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAL_CACHE", str(tmp_path / "cache"))


def scan(path: Path):
    return Shards(str(path), (str(path),)).scan()


@pytest.mark.parametrize(
    ("files", "labels"),
    [
        ({"cls": b"7"}, ("7",)),
        ({"cls": b" tench\n"}, ("tench",)),
        ({"json": b'{"label": "tench"}'}, ("tench",)),
        ({"json": b'{"label": 3}', "cls": b"tench"}, ("tench",)),
        ({"json": b'{"label": 3, "class_name": "tench"}', "cls": b"3"}, ("tench",)),
        ({"json": b'{"caption": "x"}', "cls": b"3"}, ("3",)),
        ({"json": b"no json", "cls": b"3"}, ("3",)),
        ({"json": b'{"labels": ["b", "a"]}'}, ("a", "b")),
        ({"json": '{"label": "e\u0301"}'.encode()}, ("\u00e9",)),
    ],
)
def test_labels_of_webdataset(tmp_path, files, labels):
    content = {f"x/1.{extension}": data for extension, data in files.items()}
    found = scan(write(tmp_path / "a.tar", {"x/1.jpg": png(0), **content}))
    assert found.labels == [labels] and found.names == ["a.tar/x/1.jpg"]
    assert found.multi_label == (labels == ("a", "b"))
    assert found.reader.read(0) == png(0)


def test_samples_that_cannot_be_used_are_named(tmp_path):
    files = {
        "1.png": png(1),
        "2.cls": b"0",
        "3.png": png(3),
        "3.seg.png": png(4),
        "3.cls": b"0",
        "4.jpg": b"<html>",
        "4.cls": b"0",
        "5.png": png(5),
        "5.cls": b"0",
    }
    for _ in range(2):  # the second time from the cache, or not
        found = scan(write(tmp_path / "a.tar", files))
        assert found.names == ["a.tar/5.png"]
        reasons = {problem.path: problem.reason for problem in found.problems}
        assert "no label" in reasons["a.tar/1"] and "2 images" in reasons["a.tar/3"]
        assert "0 images" in reasons["a.tar/2"] and "web page" in reasons["a.tar/4.jpg"]


def test_splits_by_names_and_folders(tmp_path):
    write(tmp_path / "one" / "set-train-00.tar", samples(0, 8))
    write(tmp_path / "one" / "set-val-00.tar", samples(8, 4))
    write(tmp_path / "two" / "train" / "00.tar", samples(0, 8))
    write(tmp_path / "two" / "val" / "00.tar", samples(8, 4))
    for name in ("one", "two"):
        data = open_dataset(tmp_path / name)
        assert (len(data.train), len(data.val)) == (8, 4) and data.val.name == "val"
    write(tmp_path / "three" / "00.tar", samples(0, 20))
    data = open_dataset(tmp_path / "three")
    assert (len(data.train), len(data.val)) == (16, 4) and data.classes == ("0", "1")
    assert len(open_dataset(str(tmp_path / "three" / "{00..00}.tar")).train) == 16


def test_class_numbers_become_names(tmp_path):
    write(tmp_path / "a.tar", samples(0, 10))
    (tmp_path / "classes.txt").write_text("tench\nshark\n")
    assert open_dataset(tmp_path).classes == ("shark", "tench")
    (tmp_path / "classes.txt").write_text("tench\n")
    with pytest.raises(DataError, match=r"class number 1, and classes\.txt names 1"):
        open_dataset(tmp_path)


def test_headers_are_read_once(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tar", samples(0, 10))
    first = scan(path)
    monkeypatch.setattr(tar_shards, "_samples", None)
    again = scan(path)
    assert again.names == first.names and np.array_equal(again.reader.places, first.reader.places)


@pytest.mark.parametrize("damage", ["cut", "gzip", "text", "gone"])
def test_what_is_no_tar(tmp_path, damage):
    path = write(tmp_path / "a.tar", samples(0, 10))
    data = path.read_bytes()
    import gzip

    path.write_bytes(
        {"cut": data[:3000], "gzip": gzip.compress(data), "text": b"x" * 2000}.get(damage, b"")
    )
    if damage == "gone":
        path.unlink()
    with pytest.raises(DataError, match=r"not a whole, uncompressed tar|cannot be read|No images"):
        open_dataset(str(path))


def test_a_shard_that_shrinks_later_is_named(tmp_path):
    path = write(tmp_path / "a.tar", samples(0, 10))
    reader = scan(path).reader
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match="ends early"):
        reader.read(9)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        reader.read(0)


def test_shards_elsewhere_are_read_a_few_at_a_time(tmp_path):
    system = fsspec.filesystem("memory")
    for number in range(20):
        write(tmp_path / f"train-{number:02}.tar", samples(10 * number, 10))
        system.pipe(
            f"/far/train-{number:02}.tar", (tmp_path / f"train-{number:02}.tar").read_bytes()
        )
    try:
        far, near = open_dataset("memory://far"), open_dataset(tmp_path)
        assert near.train.shards is None and far.train.read(5) == near_by(near, far.train.key(5))
        order = far.train.order(0)
        assert sorted(order) == list(range(len(far.train))) and order != far.train.order(1)
        shard = far.train.shards[order]
        first = shard[: np.isin(shard, list(dict.fromkeys(shard.tolist()))[:8]).sum()]
        assert len(set(first.tolist())) == 8, "eight shards are read through before the next"
        assert (np.diff(first) != 0).mean() > 0.7, "and mixed among them"
    finally:
        system.rm("/far", recursive=True)


def test_the_stream_is_the_same_for_any_number_of_workers_and_processes(tmp_path):
    import torch

    from vitral.data.loader import View, train_batches
    from vitral.specs import ImageSpec
    from vitral.specs.augment import Augment

    system = fsspec.filesystem("memory")
    for number in range(10):
        path = write(tmp_path / f"train-{number}.tar", samples(8 * number, 8))
        system.pipe(f"/many/{path.name}", path.read_bytes())
    split = open_dataset("memory://many").train

    def stream(workers: int, start: int, rank: int = 0, world: int = 1) -> list[torch.Tensor]:
        batches = train_batches(
            split,
            [View(Augment(flip=0.5), ImageSpec(size=(16, 16)))],
            batch=8,
            seed=1,
            start_step=start,
            workers=workers,
            rank=rank,
            world=world,
        )
        steps = [next(batches) for _ in range(12 - start)]  # into the second epoch
        batches.close()
        return [torch.cat([batch.indices, batch.images.flatten().long()]) for batch in steps]

    try:
        whole = stream(0, 0)
        for other in (stream(1, 0), stream(2, 0), whole[:5] + stream(2, 5)):
            assert all(torch.equal(a, b) for a, b in zip(whole, other, strict=True))
        halves = [stream(0, 0, rank=rank, world=2) for rank in range(2)]
        for step, one, two in zip(whole, *halves, strict=True):
            assert torch.equal(step[:8], torch.cat([one[:4], two[:4]]))
            assert torch.equal(step[8:], torch.cat([one[4:], two[4:]]))
    finally:
        system.rm("/many", recursive=True)


def near_by(data, key: str) -> bytes:
    for split in (data.train, data.val):
        for index in range(len(split)):
            if split.key(index) == key:
                return split.read(index)
    raise AssertionError(key)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "another"}'])
def test_an_index_of_something_else(text):
    with pytest.raises(DataError, match="is not an index"):
        tar_shards.read_index(text, "index.json")


def test_a_damaged_index_is_refused():
    shard = {"name": "a.tar", "bytes": 1, "samples": [["a", 0, 1, ["cat"]]]}
    good = {"format": tar_shards.FORMAT, "multi_label": False, "shards": [shard]}
    assert tar_shards.read_index(json.dumps(good), "index.json") == good
    for bad in (
        {"shards": None},
        {"shards": [shard, shard]},
        {"shards": [{**shard, "name": "../a.tar"}]},
        {"shards": [{**shard, "samples": [["a"]]}]},
        {"shards": [{"name": "a.tar", "bytes": 1}]},
        {"multi_label": None},
    ):
        with pytest.raises(DataError, match="is not an index"):
            tar_shards.read_index(json.dumps(good | bad), "index.json")


def test_an_index_belongs_to_its_shards(tmp_path):
    path = write(tmp_path / "train-0.tar", samples(0, 10))
    index = {"format": tar_shards.FORMAT, "multi_label": False, "shards": [tar_shards.entry(path)]}
    (tmp_path / tar_shards.INDEX).write_text(json.dumps(index))
    assert len(open_dataset(tmp_path).train) == 8
    path.write_bytes(path.read_bytes() + b"\0" * 512)
    with pytest.raises(DataError, match="incomplete or was changed"):
        open_dataset(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="is in the index but cannot be read"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("damage", ["header", "cut inside a header", "cut between members"])
def test_nothing_behind_a_damaged_header_is_lost_in_silence(tmp_path, damage):
    path = write(tmp_path / "x.tar", samples(0, 40))
    with tarfile.open(path) as tar:
        place = tar.getmembers()[40].offset
    data = bytearray(path.read_bytes())
    if damage == "header":
        data[place : place + 512] = b"x" * 512
    else:
        del data[place + (200 if "inside" in damage else 0) :]
    path.write_bytes(data)
    with pytest.raises(DataError, match="not a whole, uncompressed tar file"):
        scan(path)


def test_samples_may_say_their_part_of_the_split(tmp_path):
    files: dict[str, bytes] = {}
    for index in range(12):
        part = ["train", "train", "validation", "test"][index % 4]
        files[f"{index}.png"] = png(index)
        files[f"{index}.json"] = json.dumps({"label": index % 2, "Split": part}).encode()
    path = write(tmp_path / "all.tar", files)
    for _ in range(2):  # read, and remembered
        data = open_dataset(path)
        assert (len(data.train), len(data.val)) == (6, 3)
        assert [data.val.key(row) for row in range(3)] == [f"all.tar/{n}.png" for n in (2, 6, 10)]
        assert any("6 of train, 3 of val, 3 of test" in one.sentence for one in data.decisions)
