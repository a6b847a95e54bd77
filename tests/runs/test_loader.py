"""Loading processes do not outlive the one that started them, and go without a word."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ORPHAN = """
import multiprocessing, os, signal, sys, time
from vitral.data import processes

def late():
    while os.getppid() == parent:
        time.sleep(0.01)
    processes.begin(0)
    print("survived", flush=True)

parent = os.getpid()
multiprocessing.get_context("fork").Process(target=late).start()
os.kill(parent, signal.SIGKILL)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are forked there")
def test_a_worker_that_begins_after_its_parent_died_goes_at_once():
    done = subprocess.run(
        [sys.executable, "-c", ORPHAN], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGKILL, "", "")


READER = """
import itertools, sys, time
from vitral.images.augment import Augment
from vitral.data.datasets import open_dataset
from vitral.data.loader import View, train_batches
from vitral.specs import ImageSpec
split = open_dataset("shapes", size=16, count=64).train
batches = train_batches(split, [View(Augment(crop="none"), ImageSpec(size=16))], batch=8,
                        seed=0, start_step=0, workers=2)
next(batches)
print("ready", flush=True)
for batch in batches:
    time.sleep(0.05)
"""


def living_group(group: int) -> list[int]:
    """Process ids of a process group, zombies left out."""
    living = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, of_group = (process / "stat").read_text().rsplit(")", 1)[1].split()[:3]
        except OSError:  # it ended in the meantime
            continue
        if int(of_group) == group and state != "Z":
            living.append(int(process.name))
    return living


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_go_when_the_parent_does_and_say_nothing(how):
    with subprocess.Popen(
        [sys.executable, "-c", READER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as parent:
        assert parent.stdout is not None and parent.stderr is not None
        assert parent.stdout.readline() == "ready\n", parent.stderr.read()
        assert len(living_group(parent.pid)) >= 3
        if how == signal.SIGINT:
            os.killpg(parent.pid, how)  # as the terminal does it: to the workers too
        else:
            parent.send_signal(how)
        said = parent.stderr.read()
    deadline = time.monotonic() + 20
    while living_group(parent.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not living_group(parent.pid)
    assert said.count("Traceback") == (1 if how == signal.SIGINT else 0), said
    assert "DataLoader worker" not in said and "leaked" not in said, said


STOPPED = """
import sys
import vitral
from vitral.errors import Interrupted
from vitral.training.display import Display
Display.step = lambda *_, **__: print("step", flush=True)
try:
    vitral.train("shapes", model="mu/16", size=32, epochs=500, out=sys.argv[1],
                 changes=["data.workers=2", "data.count=64"])
except Interrupted as error:
    print(error, flush=True)
    sys.exit(130)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_sigterm_to_every_process_finishes_the_step_and_saves(tmp_path: Path) -> None:
    """As a scheduler ends a job; twice, as torchrun passes its own on."""
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, tmp_path / "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as run:
        assert run.stdout is not None and run.stderr is not None
        assert run.stdout.readline() == "step\n", run.stderr.read()
        assert len(living_group(run.pid)) >= 3
        for _ in range(2):
            os.killpg(run.pid, signal.SIGTERM)
            time.sleep(0.1)
        said, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    assert "Traceback" not in errors
    assert "the state is saved" in said
    assert list((tmp_path / "run" / "state").iterdir())
    assert not living_group(run.pid)


SCRIPT = """
import multiprocessing, sys
multiprocessing.set_start_method(sys.argv[1])
import vitral
changes = ["data.workers=1", "length=1 steps", "schedule.warmup=0 steps"]
run = vitral.train(sys.argv[2], model="mu/16", size=32, out=sys.argv[3], changes=changes)
print("trained", run.evaluation.samples)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_without_a_guard_is_run_once(method: str, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    words = [sys.executable, tmp_path / "script.py", method, photos, tmp_path / "run"]
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trained 6\n"


def test_a_temporary_folder_of_a_long_name_loses_no_batch(tmp_path: Path) -> None:
    """A socket's name has room for about 90 letters."""
    long = tmp_path / ("x" * 95)
    long.mkdir()
    code = READER.replace("workers=2)", "workers=2, note=print)").partition("print(")[0]
    code += "print(len(next(batches).images)); batches.close()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(long)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told, read = done.stdout.splitlines()
    assert told.startswith("pictures come from the loading processes through pipes, slower: TMPDIR")
    assert read == "8"
