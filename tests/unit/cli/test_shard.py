"""shard, as it is typed."""

from __future__ import annotations

import json

from drawn import hashes


def test_shard_writes_what_train_reads(vitral, photos, tmp_path):
    before = hashes(photos)
    code, out, err = vitral("shard", photos, tmp_path / "out", "--size", "20KB")
    assert code == 0 and not err and "30 train and 6 val images of 3 classes" in out
    assert hashes(photos) == before
    code, out, _ = vitral("check", tmp_path / "out", "--json")
    assert code == 0 and json.loads(out)["layout"] == "tar shards"
    code, _, err = vitral("shard", photos, tmp_path / "out")
    assert code == 2 and "not empty" in err
    code, _, err = vitral("shard", photos, tmp_path / "two", "--size", "big")
    assert code == 2 and "256MB" in err and not (tmp_path / "two").exists()


def test_shard_names_what_it_leaves_out(vitral, photos, tmp_path):
    for index in range(2):
        (photos / "arrow" / f"bad{index}.jpg").write_bytes(b"<html>")
    code, _, err = vitral("shard", photos, tmp_path / "out")
    assert code == 3 and "more than 1 %" in err and not (tmp_path / "out").exists()
    code, out, err = vitral("shard", photos, tmp_path / "out", "--allow-unreadable")
    assert code == 0 and "arrow/bad0.jpg: This is a web page" in err and "in 2 shards" in out
