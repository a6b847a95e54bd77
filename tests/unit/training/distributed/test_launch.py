import pytest

from vitral.errors import UsageError
from vitral.training.distributed.launch import launch, launched


def test_a_number_of_processes() -> None:
    for number in (0, -3):
        with pytest.raises(UsageError, match="number of processes, from 1"):
            launch(number, ["doctor"])


def test_who_was_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not launched()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launched()
