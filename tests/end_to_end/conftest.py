"""The demo, whole as the README says it, and cut short."""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from typed import typed
from vitral.recipes import digits
from vitral.training.duration import epochs

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Demo:
    run: Path
    text: str
    seconds: float


@pytest.fixture(scope="session")
def whole_demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """`make demo OUT=...` on all cores, in the environment that is there."""
    if shutil.which("make") is None or not (ROOT / ".venv" / ".user").exists():
        pytest.skip("needs make and the environment of `make env`")
    run = tmp_path_factory.mktemp("demo") / "run"
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "MAKEFLAGS")}
    started = time.monotonic()
    done = subprocess.run(
        ["make", "demo", f"OUT={run}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Demo(run, done.stdout + done.stderr, time.monotonic() - started)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """`vitral demo` of 5 epochs instead of 100, in this process."""
    run = tmp_path_factory.mktemp("demo") / "run"
    schedule = replace(digits.recipe.schedule, warmup=epochs(1))
    short = replace(
        digits.recipe, schedule=schedule, length=epochs(5), evaluate_every=epochs(5), ema=0.9
    )
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "recipe", short)
        text = typed("demo", "--out", run)
    return Demo(run, text, time.monotonic() - started)
