"""check, as it is typed."""

from __future__ import annotations

import json

from drawn import hashes


def test_check_prints_what_is_there_and_what_is_wrong(vitral, photos):
    code, out, err = vitral("check", photos)
    assert code == 0 and "36 images, 3 classes" in out and "ready to train" in out and not err
    (photos / "arrow" / "bad.jpg").write_bytes(b"<html>")
    (photos / "arrow" / "worse.jpg").write_bytes(b"")
    before = hashes(photos)
    code, out, err = vitral("check", photos, "--full")
    assert code == 3 and "2  left out" in out and "arrow/bad.jpg" in out and "ready" not in out
    assert "more than 1 %" in err and hashes(photos) == before


def test_check_as_json(vitral, photos):
    (photos / "arrow" / "bad.jpg").write_bytes(b"<html>")
    code, out, _ = vitral("check", photos, "--json")
    found = json.loads(out)
    assert code == 0 and found["ready"] and found["images"] == 36
    assert found["problems"][0]["code"] == "unreadable"
    (photos / "arrow" / "worse.jpg").write_bytes(b"")
    code, out, _ = vitral("check", photos, "--json")
    assert code == 3 and json.loads(out)["ready"] is False


def test_check_of_nothing(vitral, tmp_path):
    code, out, err = vitral("check", tmp_path / "none")
    assert code == 3 and "does not exist" in err and not out
