"""Shards are answered part by part: the same files by any number of processes, kills and all."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from drawn import draw_folder
from vitral.errors import UsageError
from vitral.parts import Place

parquet = pytest.importorskip("pyarrow.parquet")
Vitral = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 60 drawn images in a dozen shards, one of which holds a file that is no image."""
    from vitral.data import write_shards
    from vitral.data.datasets import open_dataset

    place = tmp_path_factory.mktemp("shards")
    draw_folder(place / "photos", kinds=3, each=20)
    out = place / "tars"
    out.mkdir()
    write_shards.pack(out, data=open_dataset(place / "photos"), size=12_000)
    assert len(list(out.glob("*.tar"))) >= 6
    return out


@pytest.fixture
def run(trained: Path) -> Path:
    return trained / "run"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


def rows(folder: Path) -> list[dict[str, object]]:
    return [row for path in sorted(folder.glob("*.parquet"))
            for row in parquet.read_table(path).to_pylist()]  # fmt: skip


def finish(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vitral", *map(str, words), "--device=cpu"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_one_process_or_two_and_a_kill_between(run: Path, shards: Path, tmp_path: Path) -> None:
    one = finish("embed", run, shards, "--out", tmp_path / "one")
    assert one.returncode == 0, one.stderr
    expected = files(tmp_path / "one")
    assert len(expected) == len(list(shards.glob("*.tar")))
    words = ["embed", run, shards, "--out", tmp_path / "two", "--devices=2", "--device=cpu"]
    started = subprocess.Popen(
        [sys.executable, "-m", "vitral", *map(str, words)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    while started.poll() is None and not files(tmp_path / "two"):
        time.sleep(0.002)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    before = files(tmp_path / "two")
    two = finish(*words[:-1])
    assert two.returncode == 0, two.stderr
    assert before.items() <= files(tmp_path / "two").items()
    assert files(tmp_path / "two") == expected  # to the byte, none missing and none twice
    names = [row["path"] for row in rows(tmp_path / "two")]
    assert len(names) == len(set(names)) == 60
    again = finish(*words)
    assert "done before" in again.stderr
    assert files(tmp_path / "two") == expected


def test_an_evaluation_in_parts_is_that_of_the_whole(
    run: Path, shards: Path, tmp_path: Path, vitral: Vitral
) -> None:
    options = ("--engine=torch", "--device=cpu", "--json")
    code, whole, _ = vitral("evaluate", run, shards, *options)
    assert code == 0
    code, parts, error = vitral("evaluate", run, shards, "--out", tmp_path / "p", *options)
    assert code == 0, error
    expected, found = json.loads(whole), json.loads(parts)
    assert found["out"] == str(tmp_path / "p") and found["unreadable"] == 0
    for key in ("accuracy", "interval", "top5", "macro_f1", "samples", "classes"):
        assert found[key] == expected[key], key


def test_answers_stand_beside_the_reasons_of_what_cannot_be_read(
    run: Path, shards: Path, tmp_path: Path, vitral: Vitral
) -> None:
    damaged = tmp_path / "tars"
    damaged.mkdir()
    first, second, third = sorted(shards.glob("*.tar"))[:3]
    shutil.copy(first, damaged)
    content = bytearray(second.read_bytes())
    offset = content.index(b"\xff\xd8\xff")
    content[offset : offset + 200] = bytes(200)
    (damaged / second.name).write_bytes(content)
    (damaged / third.name).write_bytes(third.read_bytes()[:6000])  # cut in the middle
    code, out, error = vitral(
        "predict", run, damaged, "--out", tmp_path / "p", "--json", "--device=cpu"
    )
    assert code == 0, error
    assert third.name in error and "not a whole" in error
    told = json.loads(out)
    found = rows(tmp_path / "p")
    bad = [row for row in found if row["error"]]
    assert told["rows"] == len(found) and told["unreadable"] == len(bad) == 2
    assert all(row["label"] is None and row["top"] is None for row in bad)
    assert str(bad[1]["path"]).endswith(third.name)
    whole = parquet.read_table(tmp_path / "p" / f"{first.stem}.parquet").to_pylist()
    assert all(row["label"] == row["top"][0] for row in whole)
    cut = parquet.read_table(tmp_path / "p" / f"{third.stem}.parquet").num_rows
    assert cut > 1  # those before the end are answered


def test_what_does_not_fit_is_refused_before_a_file_is_written(
    run: Path, shards: Path, tmp_path: Path, vitral: Vitral, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*words: object) -> str:
        code, _, error = vitral(*words, "--device=cpu")
        assert code in (2, 3), error
        assert len(error.strip().splitlines()[-1]) < 400
        return error

    out = tmp_path / "out"
    assert "neither a folder of tar shards" in refused("embed", run, tmp_path, "--out", out)
    nothing = tmp_path / "x-{0..3}.tar"
    assert "no such shard" in refused("embed", run, nothing, "--out", tmp_path / "none")
    assert "--out FOLDER" in refused("embed", run, shards, "--out", "f.npy", "--devices=2")
    assert "from 1, not 0" in refused("predict", run, shards, "--out", out, "--devices=0")
    assert "one source of tar" in refused("predict", run, shards, shards, "--out", out)
    assert "one source of tar" in refused("predict", run, shards, "--out", out, "--sets=0.9")
    assert "--devices is for" in refused("predict", run, shards, "--devices=2")
    assert not out.exists()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("x")
    assert "holds thesis.txt" in refused("embed", run, shards, "--out", tmp_path / "own")
    code, _, error = vitral("embed", run, shards, "--out", out, "--device=cpu")
    assert code == 0, error
    assert "another verb" in refused("predict", run, shards, "--out", out)
    assert "another options" in refused("embed", run, shards, "--out", out, "--batch=7")
    (out / "parts.json").write_text("no")
    assert "another format" in refused("embed", run, shards, "--out", out)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "WORLD_SIZE is '2' and RANK is ''" in refused("embed", run, shards, "--out", out)
    monkeypatch.setenv("RANK", "5")
    with pytest.raises(UsageError, match="RANK is '5'"):
        Place.of_environment()


def test_vectors_are_those_of_the_pictures_alone(
    run: Path, shards: Path, tmp_path: Path, vitral: Vitral
) -> None:
    options = ("--engine=torch", "--device=cpu")
    assert vitral("embed", run, shards, "--out", tmp_path / "p", *options)[0] == 0
    photos = shards.parent / "photos"
    assert vitral("embed", run, photos, "--out", tmp_path / "e.parquet", *options)[0] == 0
    alone = {row["path"]: row for row in parquet.read_table(tmp_path / "e.parquet").to_pylist()}
    for row in rows(tmp_path / "p"):
        expected = alone[row["path"]]
        np.testing.assert_allclose(row["embedding"], expected["embedding"], atol=1e-4)
        assert row["given"] == [expected["label"]]
