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
from vitral.data import loader

def late():
    while os.getppid() == parent:
        time.sleep(0.01)
    loader._start_worker(0)
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
