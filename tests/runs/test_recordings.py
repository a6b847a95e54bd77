"""Learning has not moved by a bit since losses.json was recorded; see recordings.py."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

PLACE = Path(__file__).with_name("recordings.py")
QUICK = ("digits", "multi-label")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recordings", PLACE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


recordings = load()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def pictures(folder: Path) -> Path:
    recordings.draw(folder)
    return folder


@pytest.fixture(scope="module")
def prepared(pictures: Path) -> Path:
    recordings.prepare(pictures)
    return pictures


@pytest.mark.parametrize("name", QUICK)
def test_learning_is_as_recorded(pictures: Path, name: str) -> None:
    assert recordings.check(name, pictures) is None


@pytest.mark.proof
@pytest.mark.parametrize("name", [name for name in recordings.RUNS if name not in QUICK])
def test_learning_of_every_kind_is_as_recorded(prepared: Path, name: str) -> None:
    assert recordings.check(name, prepared) is None
