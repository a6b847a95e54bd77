import time

import pytest

from vitral.training import display
from vitral.training.display import Display, clock


def test_clock() -> None:
    assert clock(65) == "1:05"
    assert clock(7384) == "2:03:04"
    assert clock(0.4) == "0:00"


def test_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "LINE_SECONDS", 0.0)
    with Display() as shown:
        shown.note("model [B/16]")
        for step in range(1, 4):
            time.sleep(0.01)
            shown.step(step, 100, 32, loss=1.5, lr=1e-3)
        shown.evaluating(1, 2)
        shown.evaluated(1.0, 0.75, (0.7, 0.8))
    text = capsys.readouterr().err
    assert "model [B/16]" in text
    assert "step 3/100  loss 1.500  lr 1.0e-03" in text
    assert "images/s" in text
    assert "left" in text
    assert "val accuracy 75.00 % (70.0-80.0)" in text


def test_quiet_prints_nothing_and_still_measures(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(quiet=True) as shown:
        shown.note("nothing")
        assert shown.images_per_second == 0
        for step in (1, 2, 3):
            time.sleep(0.02)
            shown.step(step, 3, 10, loss=1.0, lr=0.1)
        assert 100 < shown.images_per_second < 500.1
        shown.pause()
        assert shown.images_per_second == 0
        shown.evaluated(1.0, 0.5, (0.4, 0.6))
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
