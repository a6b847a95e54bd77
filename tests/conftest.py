"""Folders of images that every room may use: drawn, never downloaded."""

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from vitral import cli
from vitral.images.samples import KINDS, draw, label_of

SHARED = Path(__file__).resolve().parents[2] / "shared"


def draw_folder(folder: Path, kinds: int, each: int, size: int = 32, first: int = 0) -> Path:
    """Class folders with `each` JPEG scenes of the first `kinds` shapes."""
    counts = dict.fromkeys(range(kinds), 0)
    index = first
    while min(counts.values()) < each:
        label = label_of(7, index)
        if label in counts and counts[label] < each:
            path = folder / KINDS[label] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw(7, index, size).image).save(path, quality=92)
            counts[label] += 1
        index += 1
    return folder


def hashes(folder: Path) -> dict[str, str]:
    """Content of every file below a folder, to show that none was changed."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of twelve 32-pixel JPEGs, no split."""
    return draw_folder(tmp_path / "photos", kinds=3, each=12)


@pytest.fixture
def vitral(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process: vitral("models") -> (exit code, stdout, stderr)."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vitral", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        code = stop.value.code
        return (code if isinstance(code, int) else 0), captured.out, captured.err

    return run
