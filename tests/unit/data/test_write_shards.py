"""What is packed comes back: the same bytes, labels, names and split, for us and for webdataset."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitral.data.datasets import open_dataset
from vitral.data.sources import Split
from vitral.data.write_shards import pack, parse_size
from vitral.errors import DataError, UsageError


def everything(split: Split) -> dict[str, tuple[bytes, list]]:
    labels = split.labels.tolist()
    return {split.key(i): (split.read(i), labels[i]) for i in range(len(split))}


@pytest.fixture
def packed(photos: Path, tmp_path: Path) -> Path:
    picture = sorted((photos / "arrow").iterdir())[0]
    picture.rename(picture.with_name("고양이.b.jpg"))  # a dot and other letters in a name
    out = tmp_path / "shards"
    out.mkdir()
    assert pack(out, open_dataset(photos), size=20_000) == ()
    return out


def test_everything_comes_back(photos, packed):
    files, shards = open_dataset(photos), open_dataset(packed)
    assert shards.classes == files.classes and not shards.problems
    for ours, theirs in ((shards.train, files.train), (shards.val, files.val)):
        assert everything(ours) == everything(theirs) and ours.name == theirs.name
    assert shards.train.shards is None, "near at hand, any order will do"


def test_shards_are_about_as_large_as_asked_and_always_the_same(photos, packed, tmp_path):
    sizes = [path.stat().st_size for path in sorted(packed.glob("train-*.tar"))]
    assert len(sizes) > 1 and all(20_000 < size < 40_000 for size in sizes[:-1])
    again = tmp_path / "again"
    again.mkdir()
    ticks: list[tuple[int, int]] = []
    pack(again, open_dataset(photos), size=20_000, tick=lambda *given: ticks.append(given))
    names = sorted(path.name for path in packed.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert all((packed / name).read_bytes() == (again / name).read_bytes() for name in names)
    assert ticks[-1] == (36, 36)


def test_without_the_index_it_is_webdataset(photos, packed):
    files = open_dataset(photos)
    with tarfile.open(sorted(packed.glob("train-*.tar"))[0]) as tar:
        names = tar.getnames()[:3]
        key = names[0].split(".")[0]
        assert names == [f"{key}.jpg", f"{key}.cls", f"{key}.json"]
        number, facts = (tar.extractfile(name).read() for name in names[1:])
    facts = json.loads(facts)
    assert files.classes[int(number)] == facts["label"] and "/" in facts["path"]
    (packed / "index.json").unlink()
    again = open_dataset(packed)
    assert everything(again.train) == everything(files.train)
    assert everything(again.val) == everything(files.val)


def test_multi_labels_come_back(tmp_path):
    dice, rows = np.random.default_rng(0), ["path,labels"]
    for index in range(10):
        noise = dice.integers(0, 256, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{index}.png")
        rows.append(f"{index}.png,{'|'.join(['', 'a', 'b', 'a|b'][index % 4].split('|'))}")
    (tmp_path / "train.csv").write_text("\n".join(rows))
    out = tmp_path.parent / f"{tmp_path.name}_out"
    out.mkdir()
    files = open_dataset(tmp_path)
    pack(out, files, size=10**6)
    shards = open_dataset(out)
    assert shards.multi_label and everything(shards.train) == everything(files.train)


def test_drawings_become_png(tmp_path):
    data = open_dataset("shapes", size=16, count=60)
    pack(tmp_path, data, size=10**7)
    split = open_dataset(tmp_path).train
    for index in range(4):
        row = int(split.key(index).partition("/")[2])
        pixels = np.asarray(Image.open(io.BytesIO(split.read(index))))
        assert np.array_equal(pixels, data.train.read(row))


def test_a_file_that_has_gone_meanwhile_is_left_out_and_named(photos, tmp_path):
    data = open_dataset(photos)
    (photos / data.train.key(3)).unlink()
    out = tmp_path / "out"
    out.mkdir()
    (problem,) = pack(out, data, size=10**6)
    assert problem.path == data.train.key(3)
    assert len(open_dataset(out).train) == len(data.train) - 1


@pytest.mark.parametrize(("text", "size"), [("256MB", 256e6), ("1.5 gb", 1.5e9), ("9kB", 9000)])
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "256", "MB", "0MB", "-1MB", "infGB", "nanGB", "12TB"])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match="like 256MB"):
        parse_size(text)


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_names_that_are_no_utf8(photos, tmp_path):
    picture = sorted((photos / "arrow").iterdir())[0]
    picture.rename(os.fsdecode(os.fsencode(picture.parent) + b"/caf\xe9.jpg"))
    (tmp_path / "shards").mkdir()
    assert pack(tmp_path / "shards", open_dataset(photos), size=10**9) == ()
    names = everything(open_dataset(tmp_path / "shards").train).keys()
    assert "arrow/caf\\xe9.jpg" in names
    (photos / "arrow").rename(os.fsdecode(os.fsencode(photos) + b"/caf\xe9"))
    with pytest.raises(DataError, match=r"class name caf\\xe9 is not UTF-8"):
        pack(tmp_path / "shards", open_dataset(photos), size=10**9)
