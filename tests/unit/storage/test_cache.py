"""A cache that may be missing, damaged or read-only at any time."""

from __future__ import annotations

from pathlib import Path

from vitral.storage import cache


def test_a_value_comes_back_until_the_folder_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAL_CACHE", str(tmp_path / "cache"))
    key = cache.key_of(["a", 1])
    assert cache.load("copies", key) is None
    cache.store("copies", key, {"rows": [1, 2]})
    assert cache.load("copies", key) == {"rows": [1, 2]}
    assert [path.name for path in (tmp_path / "cache" / "copies").iterdir()] == [f"{key}.json"]
    (tmp_path / "cache" / "copies" / f"{key}.json").write_text("{")
    assert cache.load("copies", key) is None


def test_a_place_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VITRAL_CACHE", str(tmp_path / "file"))
    cache.store("copies", "key", 1)
    assert cache.load("copies", "key") is None


def test_keys_tell_parts_apart():
    assert len({cache.key_of(parts) for parts in (["ab"], ["a", "b"], ["a", "b", 1])}) == 3


def test_where_it_is(monkeypatch):
    monkeypatch.delenv("VITRAL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache.folder() == Path("/somewhere/vitral")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path.home() / ".cache" / "vitral"
