"""Folders of images that every room may use: drawn, never downloaded."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker of pytest-xdist has one core

import gc
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import vitral as package
from drawn import draw_folder
from vitral import cli

# A shell starts its background jobs with Ctrl-C ignored; the tests of Ctrl-C need it, and so do
# the processes that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What is imported stays: the collector need not walk through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Vitral remembers of data sets stays out of the user's own cache."""
    monkeypatch.setenv("VITRAL_CACHE", str(tmp_path_factory.getbasetemp() / "vitral-cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of twelve 32-pixel JPEGs, no split."""
    return draw_folder(tmp_path / "photos", kinds=3, each=12)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos/ (three classes of twelve) and run/, an epoch on them; only to read."""
    folder = tmp_path_factory.mktemp("trained")
    package.train(
        draw_folder(folder / "photos", kinds=3, each=12),
        model="mu/8",
        size=32,
        epochs=1,
        out=folder / "run",
        changes=["data.workers=0"],
    )
    return folder


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
