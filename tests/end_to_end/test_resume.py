"""kill -9 at any moment, then --resume: on a CPU the weights end bit-equal."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from drawn import draw_folder
from typed import typed

STEPS = 240
SETTINGS = [
    "--model=mu/8",
    "--size=32",
    "--batch=8",
    f"--set=length={STEPS} steps",
    "--set=schedule.warmup=10 steps",
    "--set=evaluate_every=20 steps",
    "--set=save_seconds=0.5",
    "--set=augment.mixup=0.2",
    "--set=data.workers=1",
]


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "vitral", *map(str, words)]


def finish(*words: object) -> None:
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def lines(run: Path) -> int:
    log = run / "metrics.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def start_and_kill(dice: random.Random, run: Path, *words: object) -> bool:
    """Start, let it write a random number of new lines and wait a little, kill -9.

    Returns whether it was killed before it ended.
    """
    before, wanted = lines(run), dice.randint(1, 60)
    process = subprocess.Popen(
        command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and lines(run) < before + wanted:
        before = min(before, lines(run))  # a resumed run cuts the log back to its state
        time.sleep(0.003)
    time.sleep(dice.random() * 0.05)
    process.kill()
    return process.wait() != 0


def saving(run: Path) -> bool:
    """Whether a slot is being written at this moment."""
    return any((run / "state").glob(".*.writing"))


def evaluating(run: Path) -> bool:
    """Whether the last step owes a validation that has not been counted."""
    log = run / "metrics.jsonl"
    last = log.read_text().splitlines()[-1:] if log.exists() else []
    try:
        line = json.loads(last[0])
    except (IndexError, json.JSONDecodeError):
        return False
    return "loss" in line and line["step"] % 20 == 0


def kill_when(moment: Callable[[Path], bool], run: Path, after: int, *words: object) -> bool:
    """Start, and kill -9 at the first such moment after `after` new lines of the log."""
    wanted = lines(run) + after
    process = subprocess.Popen(
        command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not (lines(run) >= wanted and moment(run)):
        pass
    process.kill()
    return process.wait() != 0


def same_bits(a: Path, b: Path) -> None:
    for name in ("last", "best"):
        first = load_file(a / name / "model.safetensors")
        second = load_file(b / name / "model.safetensors")
        assert set(first) == set(second)
        assert all(first[key].numpy().tobytes() == second[key].numpy().tobytes() for key in first)
    assert (a / "predictions.csv").read_text() == (b / "predictions.csv").read_text()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("kill") / "photos", kinds=3, each=20)


@pytest.fixture(scope="module")
def uninterrupted(data: Path) -> Path:
    typed("train", data, *SETTINGS, "--out", data.parent / "whole")
    return data.parent / "whole"


def kill_often(data: Path, run: Path, seed: int, kills: int) -> int:
    """Kill a run up to `kills` times before it ends, then let it end; returns the kills."""
    dice, done = random.Random(seed), 0
    words: tuple[object, ...] = ("train", data, *SETTINGS, "--out", run)
    while done < kills:
        done += 1
        if not start_and_kill(dice, run, *words):
            break
        if (run / "recipe.json").exists():
            words = ("train", "--resume", run)
    finish("train", "--resume", run)
    return done


def test_killed_twice_ends_at_the_same_bits(
    data: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    assert kill_often(data, tmp_path / "run", seed=1, kills=2) == 2
    same_bits(uninterrupted, tmp_path / "run")


@pytest.mark.proof
@pytest.mark.parametrize("seed", range(6))
def test_killed_at_more_than_twenty_moments(
    data: Path, uninterrupted: Path, tmp_path: Path, seed: int
) -> None:
    assert kill_often(data, tmp_path / "run", seed=100 + seed, kills=4) >= 1
    same_bits(uninterrupted, tmp_path / "run")


@pytest.mark.proof
@pytest.mark.parametrize("moment", [saving, evaluating], ids=["saving", "evaluating"])
def test_killed_at_the_worst_moments(
    data: Path, uninterrupted: Path, tmp_path: Path, moment: Callable[[Path], bool]
) -> None:
    run, kills = tmp_path / "run", 0
    words: tuple[object, ...] = ("train", data, *SETTINGS, "--set=save_seconds=0", "--out", run)
    for after in (10, 35, 35, 35, 35):
        kills += kill_when(moment, run, after, *words)
        words = ("train", "--resume", run)
    assert kills >= 4
    finish("train", "--resume", run)
    same_bits(uninterrupted, run)


@pytest.mark.proof
def test_a_killed_run_leaves_no_loading_process_behind(data: Path, tmp_path: Path) -> None:
    start_and_kill(
        random.Random(0), tmp_path / "run", "train", data, *SETTINGS, "--out", tmp_path / "run"
    )
    for _ in range(100):
        listing = subprocess.run(
            ["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True
        )
        if str(tmp_path / "run") not in listing.stdout:
            return
        time.sleep(0.2)
    pytest.fail("a loading process outlived its killed parent by 20 s")
