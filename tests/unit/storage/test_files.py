import errno
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vitral.errors import MachineError, UsageError
from vitral.storage import files


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_whole_or_as_before(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    files.write_text(path, "old 한글")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        MachineError, match=r"disk is full.*more than 4 bytes are needed, .*B are free"
    ):
        files.write_file(path, fail)
    with pytest.raises(MachineError, match=r"disk is full.*: 12\.35 MB are needed, .*B are free"):
        files.write_file(path, fail, needed=12_345_678)
    assert path.read_text(encoding="utf-8") == "old 한글"
    assert names_in(path.parent) == {"file.txt"}


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="Choose a writable place"):
        files.write_text(tmp_path / "file" / "below", "x")


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "best"
    files.write_folder(folder, lambda fresh: files.write_text(fresh / "a", "1"))
    files.write_folder(folder, lambda fresh: files.write_text(fresh / "b", "2"))
    assert names_in(folder) == {"b"}
    assert names_in(tmp_path) == {"best"}

    def fail(fresh: Path) -> None:
        (fresh / "c").write_text("3")
        raise OSError(errno.EIO, "broken disk")

    with pytest.raises(MachineError, match="broken disk"):
        files.write_folder(folder, fail)

    def fill_the_disk(fresh: Path) -> None:
        (fresh / "c").write_text("3" * 5000)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(MachineError, match=r"more than 5\.00 kB are needed"):
        files.write_folder(folder, fill_the_disk)
    with pytest.raises(MachineError, match=r"best: 1\.00 kB are needed"):
        files.write_folder(folder, fill_the_disk, needed=1001)
    assert names_in(folder) == {"b"}
    assert names_in(tmp_path) == {"best"}


def test_a_kill_between_the_two_renames_is_undone(tmp_path: Path) -> None:
    old, folder = tmp_path / ".best.old", tmp_path / "best"
    old.mkdir()
    (old / "weights").write_text("kept")
    files.recover(folder)
    assert (folder / "weights").read_text() == "kept"
    old.mkdir()  # killed after the second rename: the new folder stands, the old one is rubbish
    files.recover(folder)
    assert names_in(tmp_path) == {"best"}


def test_a_reader_finds_a_folder_between_the_two_renames_and_changes_nothing(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "best"
    assert files.current(folder) == folder
    (tmp_path / ".best.old").mkdir()
    (tmp_path / ".best.old" / "weights").write_text("kept")
    assert files.read_folder(folder, lambda place: (place / "weights").read_text()) == "kept"
    assert names_in(tmp_path) == {".best.old"}
    with pytest.raises(FileNotFoundError):
        files.read_folder(folder, lambda place: (place / "nothing").read_text())
    with pytest.raises(FileNotFoundError):
        files.read_folder(tmp_path / "never", lambda place: (place / "weights").read_text())


def test_what_is_read_of_a_folder_is_of_one_version(tmp_path: Path) -> None:
    folder = tmp_path / "best"

    def write(version: str) -> None:
        def fill(fresh: Path) -> None:
            for name in ("card", "weights"):
                (fresh / name).write_text(version)

        files.write_folder(folder, fill)

    write("1")
    versions = iter("234")

    def read(place: Path) -> tuple[str, str]:
        card = (place / "card").read_text()
        if card in "12":  # replaced while it is read, twice
            write(next(versions))
        return card, (place / "weights").read_text()

    assert files.read_folder(folder, read) == ("3", "3")


def test_a_folder_that_never_stays_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "READS", 3)
    with pytest.raises(MachineError, match="replaced faster"):
        files.read_folder(
            tmp_path / "best", lambda _: files.write_folder(tmp_path / "best", lambda fresh: None)
        )


def test_tensors(tmp_path: Path) -> None:
    strided = torch.arange(6.0).view(2, 3).t()
    files.write_tensors(tmp_path / "t", {"a": strided}, {"k": "v"})
    assert torch.equal(load_file(tmp_path / "t")["a"], strided)
    with pytest.raises(OSError, match=r".+"):
        files.write_tensors(tmp_path / "nowhere" / "t", {"a": strided})


def test_what_a_kill_leaves_is_known(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def stop(temporary: Path) -> None:
        temporary.write_text("half")
        raise Killed

    with pytest.raises(Killed):
        files.write_file(tmp_path / "file.json", stop)
    (left,) = tmp_path.iterdir()
    assert files.is_unfinished(left)
    assert not any(map(files.is_unfinished, (tmp_path / "my.writing", tmp_path / ".writing.txt")))


def test_arrays(tmp_path: Path) -> None:
    rows = np.arange(6.0).reshape(2, 3)
    files.write_arrays(tmp_path / "rows.npy", rows)
    assert np.array_equal(np.load(tmp_path / "rows.npy"), rows)
    for compressed in (True, False):
        files.write_arrays(tmp_path / "named", {"rows": rows, "path": rows}, compressed=compressed)
        with np.load(tmp_path / "named") as found:
            assert np.array_equal(found["path"], rows)
    with pytest.raises(ValueError, match="pickle"):
        files.write_arrays(tmp_path / "objects.npy", np.array([{}], dtype=object))


def test_a_folder_is_as_before_where_a_file_in_it_was_refused(tmp_path: Path) -> None:
    def fail(fresh: Path) -> None:
        files.write_text(fresh / "a", "1")
        files.write_text(fresh / "a" / "b", "2")

    with pytest.raises(MachineError, match="Cannot write"):
        files.write_folder(tmp_path / "best", fail)
    assert names_in(tmp_path) == set()


def test_places_that_are_refused(tmp_path: Path) -> None:
    photos, empty = tmp_path / "photos", tmp_path / "empty"
    (photos / "roses").mkdir(parents=True)
    empty.mkdir()
    (tmp_path / "file").write_text("")
    for free in (empty, tmp_path / "new"):
        files.refuse_existing(free)
        files.refuse_inside(free, str(photos))
    files.refuse_existing(photos, ignored=lambda path: path.name == "roses")
    files.refuse_inside(photos / "x", "digits")
    with pytest.raises(UsageError, match="not empty"):
        files.refuse_existing(photos)
    with pytest.raises(UsageError, match="file exists already"):
        files.refuse_existing(tmp_path / "file")
    for inside in (photos, photos / "roses" / "x", empty / ".." / "photos" / "x"):
        with pytest.raises(UsageError, match="lies inside"):
            files.refuse_inside(inside, str(photos))


def test_the_disk_of_what_is_not_there_yet(tmp_path: Path, monkeypatch) -> None:
    assert files.nearest_parent(tmp_path / "a" / "b") == tmp_path
    monkeypatch.chdir(tmp_path)
    assert files.nearest_parent(Path("a/b")) == tmp_path
