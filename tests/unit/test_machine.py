import json
from importlib import metadata
from pathlib import Path

import pytest

from vitral import machine


def test_a_working_environment_is_ready() -> None:
    found = machine.survey()
    assert found.problems == []
    assert found.facts["torch"] == metadata.version("torch")
    assert "cores" in found.facts["cpu"]
    assert json.loads(json.dumps(found.to_dict()))["ready"] is True


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PACKAGES", ("numpy", "not-a-package"))
    monkeypatch.setattr(machine, "NEEDED_DISK", 1 << 80)
    problems = " ".join(machine.survey().problems)
    assert "not-a-package is not installed" in problems
    assert "GB are free" in problems


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path("/proc"))
    assert any("not writable" in problem for problem in machine.survey().problems)
