"""The demo, run once as the README says it."""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Demo:
    run: Path
    text: str
    seconds: float


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
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
