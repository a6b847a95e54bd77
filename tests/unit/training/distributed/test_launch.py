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


def test_the_exit_code_is_that_of_the_process_that_failed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    assert launch(1, ["models", "--json"]) == 0
    assert "B/16" in capfd.readouterr().out
    assert launch(1, ["predict", "nowhere", "x.jpg"]) == 4
