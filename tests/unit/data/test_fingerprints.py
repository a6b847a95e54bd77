"""Fingerprints and splits of sources are those that f71e8d9 wrote down: its runs can be resumed."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from vitral.data.datasets import open_dataset
from vitral.data.write_shards import pack

# of vitral.images.datasets.open_dataset at f71e8d9, over the files that `sources` draws
RECORDED = {
    "folder": "3d0177e75d8868fdd3f7e3b1270f04a2 1cfe8b6726d4dd66",
    "copies": "5e2935d3f967be1b765ee31718f9c94c e5500bbe776c3499",
    "split": "2ffcf6ecce0f22975627deae03b7b38f f05f70010dead095",
    "lists": "9703834f3ee09172de409a2b763005a9 1c88ce4a218b4dca",
    "tar": "0b87cb9d145a42fd60afa9b6d35a9af1 4ede3d5fec8dfcb4",
    "own": "aca8c570373708e05bffd297e43e9d89 f682f20a4a2f48a1",
    "packed": "2d5695494c57ea07d0f64e769b035945 24b1f8a6ea78b21c",
    "folder, seed 1": "7b9f8beb4eca97bbd887041a89a7f82f 91598eab9aa4f3b0",
    "folder, half": "0b990c0b1d7c6f1f19c3fb984a497437 909d1908df8b906a",
    "csv": "c9ef7647b6280ac110b393fb8d2aa5bb 20f66084e05ca0cf",
    "csv of several labels": "c9a1d7ba5528c28abc2322e01e2da8fc 91316beb0039c781",
    "digits": "c43df2c7c0ec6ea8f9d69577071dc74f d8605702d95266e3",
    "digits, seed 1": "a030adb860804fff09cb56395edcfc40 2f64f3596ba59ebf",
    "shapes": "058c26fbaa97abc4da6c95347292b24e df0fb8d7f0f257f3",
    "shapes, large": "26943d0edb6f5b7cdcee28a80d8efda0 000c65e9b3fe2eea",
}
TABLE = "3fb37efacd9ccb8ae5cfa54d71af5d3c 7415e0adf191a0e8"


def picture(seed: int) -> bytes:
    """A PPM file: the same bytes whatever library is installed."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    return b"P6 10 12 255\n" + noise.tobytes()


def draw(root: Path, names: list[str], first: int = 0) -> Path:
    for seed, name in enumerate(names, start=first):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(seed))
    return root


def shard(path: Path, names: list[str], first: int = 0) -> None:
    """Pairs of a picture and its class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for seed, name in enumerate(names, start=first):
            for ending, content in (("ppm", picture(seed)), ("cls", name.encode())):
                member = tarfile.TarInfo(f"{seed:04}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def sources(root: Path) -> dict[str, dict]:
    """Arguments of open_dataset by a name for each case."""
    names = [f"{kind}/{number}.ppm" for kind in ("cat", "dog", "émeu") for number in range(8)]
    draw(root / "folder", names)
    draw(root / "copies", names)
    for number in range(8):
        (root / "copies" / "cat" / f"{number}-again.ppm").write_bytes(picture(number))
    draw(root / "split", [f"train/{name}" for name in names])
    draw(root / "split", [f"val/{name}" for name in names[::3]], first=100)
    draw(root / "lists", [f"{number}.ppm" for number in range(12)])
    lines = [f"{number}.ppm,{'ab'[number % 2]}" for number in range(12)]
    many = [f"{number}.ppm,{('a', 'b|c', '', 'c|a')[number % 4]}" for number in range(12)]
    (root / "lists" / "all.csv").write_text("\n".join(["path,label", *lines]))
    (root / "lists" / "many.csv").write_text("\n".join(["path,labels", *many]))
    (root / "lists" / "train.csv").write_text("\n".join(["path,label", *lines[:8]]))
    (root / "lists" / "val.csv").write_text("\n".join(["path,label", *lines[8:]]))
    shard(root / "tar" / "a.tar", ["1", "0"] * 5)
    shard(root / "tar" / "b.tar", ["1", "2"] * 5, first=50)
    shard(root / "own" / "train" / "a.tar", ["x", "y"] * 5)
    shard(root / "own" / "val" / "a.tar", ["x", "y"] * 2, first=50)
    (root / "packed").mkdir()
    pack(root / "packed", open_dataset(root / "split"), size=4000)
    paths = {
        name: {"source": str(root / name)}
        for name in ("folder", "copies", "split", "lists", "tar", "own", "packed")
    }
    return {
        **paths,
        "folder, seed 1": {**paths["folder"], "seed": 1},
        "folder, half": {**paths["folder"], "val_fraction": 0.5},
        "csv": {"source": str(root / "lists" / "all.csv")},
        "csv of several labels": {"source": str(root / "lists" / "many.csv")},
        "digits": {"source": "digits"},
        "digits, seed 1": {"source": "digits", "seed": 1, "val_fraction": 0.3},
        "shapes": {"source": "shapes", "count": 30},
        "shapes, large": {"source": "shapes", "count": 3000, "size": 32, "seed": 2},
    }


def described(**arguments) -> str:
    """The fingerprint, and a digest of the classes, keys and labels of both sides."""
    data = open_dataset(**arguments)
    digest = hashlib.blake2b("\0".join(data.classes).encode(), digest_size=8)
    for split in (data.train, data.val):
        digest.update(" ".join([split.name, *map(split.key, range(len(split)))]).encode())
        digest.update(np.ascontiguousarray(split.labels).tobytes())
    return f"{data.fingerprint} {digest.hexdigest()}"


def test_fingerprints_and_splits_are_those_of_earlier_runs(tmp_path):
    cases = sources(tmp_path)
    assert {name: described(**cases[name]) for name in cases} == RECORDED


def test_tables_too(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"bytes": picture(seed), "path": None} for seed in range(12)]
    table = datasets.Dataset.from_dict({"image": rows, "label": ["a", "b", "c"] * 4})
    table.to_parquet(str(tmp_path / "t.parquet"))
    assert described(source=tmp_path / "t.parquet") == TABLE
