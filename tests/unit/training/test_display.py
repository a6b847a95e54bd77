import io
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from vitral.training import display
from vitral.training.display import Display


def test_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display, "LINE_SECONDS", 0.0)
    with Display() as shown:
        shown.note("model [B/16]")
        for step in range(1, 4):
            time.sleep(0.01)
            shown.step(step, 100, 32, loss=1.5, lr=1e-3, measures={"accuracy": 0.625})
        shown.evaluating(1, 2)
        shown.evaluated(1.0, 0.75, (0.7, 0.8))
        shown.evaluated(2.0, 0.5, (0.4, 0.6), "mean average precision")
        shown.step(4, 100, 32, loss=1.5, lr=1e-3, measures={})
    lines = capsys.readouterr().err.splitlines()
    assert "model [B/16]" in lines
    step = next(line for line in lines if line.startswith("step 3/100  "))
    facts = step.split("  ")
    assert facts[1].endswith(" left")
    assert facts[2:4] == ["loss 1.500", "accuracy 62.5 %"]
    assert facts[4].endswith(" images/s")
    assert facts[5] == "lr 1.0e-03"
    assert facts[6].endswith("B")
    assert "epoch 1  val accuracy 75.00 % (70.0-80.0)" in lines
    assert "epoch 2  val mean average precision 50.00 % (40.0-60.0)" in lines
    assert "accuracy" not in lines[-1]  # under mixing there is none, and no old one is shown
    assert "val 50.0 %" in lines[-1]


@pytest.mark.parametrize(
    ("columns", "there", "absent"),
    [
        (160, ["7/90", " left", "loss 1.5", "accuracy 62.5 %", "val 75.0 %", "lr 1.0e-03"], []),
        (80, ["7/90", " left", "loss 1.5"], ["lr 1.0e-03", "…"]),
    ],
)
def test_a_narrow_terminal_keeps_the_most_important(
    columns: int, there: list[str], absent: list[str]
) -> None:
    text = io.StringIO()
    shown = Display()
    shown.console = Console(file=text, force_terminal=True, width=columns)
    shown.live, shown.bar.live.console, shown.bar.disable = True, shown.console, False
    with shown:
        shown.evaluated(1.0, 0.75, (0.7, 0.8))
        shown.step(7, 90, 32, loss=1.5, lr=1e-3, measures={"accuracy": 0.625})
        shown.bar.refresh()
    for words in there:
        assert words in text.getvalue()
    for words in absent:
        assert words not in text.getvalue()


def test_quiet_prints_nothing_and_still_measures(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(quiet=True) as shown:
        shown.note("nothing")
        assert shown.images_per_second == 0
        for step in (1, 2, 3):
            time.sleep(0.02)
            shown.step(step, 3, 10, loss=1.0, lr=0.1, measures={"accuracy": 0.5})
        assert 100 < shown.images_per_second < 500.1
        assert shown.memory > 1e7
        shown.pause()
        assert shown.images_per_second == 0
        shown.evaluated(1.0, 0.5, (0.4, 0.6))
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_memory_is_the_resident_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> int:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    if sys.platform != "linux" or torch.cuda.is_initialized():
        pytest.skip("the resident set of a process that uses no GPU, as Linux tells it")
    monkeypatch.setattr(display, "MEMORY_SECONDS", 0.0)
    shown = Display(quiet=True)
    before, before_told = shown.memory, told()
    held = np.ones(25_000_000)  # 200 MB
    after, after_told = shown.memory, told()
    assert after == pytest.approx(after_told, rel=0.02)
    assert after - before == pytest.approx(after_told - before_told, abs=2e7)
    assert after - before == pytest.approx(held.nbytes, rel=0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_memory_is_the_most_that_a_gpu_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "MEMORY_SECONDS", 0.0)
    held = torch.ones(50_000_000, device="cuda")
    del held
    assert Display(quiet=True).memory >= 200_000_000
