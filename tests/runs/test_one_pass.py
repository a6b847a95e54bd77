"""Planning reads and decides each thing once, in every process."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from vitral import catalog
from vitral.model import build
from vitral.planning import plan
from vitral.specs import ImageSpec
from vitral.weights import artifact

# run in every process of the command, before Vitral's own code
COUNT = """
import os
from vitral.planning import plan
from vitral.weights import artifact

def count(module, name, counts):
    original = getattr(module, name)
    def counted(*args, **kwargs):
        if counts(*args):
            with open(os.environ["COUNTS"], "a", encoding="utf-8") as file:
                file.write(f"{os.getpid()} {name}\\n")
        return original(*args, **kwargs)
    setattr(module, name, counted)

for name in ("open_dataset", "choose", "resolve"):
    count(plan, name, lambda *_: True)
count(artifact, "load_tensors", lambda folder: str(folder) == os.environ["WEIGHTS"])
"""
ONCE = {"load_tensors": 1, "open_dataset": 1, "choose": 1, "resolve": 1}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    spec = catalog.model("mu/16", size=32, classes=2)
    card = artifact.Card(model=spec, images=ImageSpec(size=(32, 32)), classes=("a", "b"))
    artifact.save(tmp_path / "weights", build(spec).state_dict(), card)
    return tmp_path / "weights"


@pytest.fixture
def counted(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of counts, with this process counting."""
    monkeypatch.setenv("COUNTS", str(tmp_path / "counts"))
    monkeypatch.setenv("WEIGHTS", str(weights))
    before = {name: getattr(plan, name) for name in ("open_dataset", "choose", "resolve")}
    load = artifact.load_tensors
    exec(COUNT, {})
    yield tmp_path / "counts"
    for name, function in before.items():
        setattr(plan, name, function)
    artifact.load_tensors = load


def counts(file: Path) -> list[dict[str, int]]:
    """How often each thing was done, of every process."""
    lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()]
    found = {process: Counter[str]() for process, _ in lines}
    for process, name in lines:
        found[process][name] += 1
    file.unlink()
    return [dict(count) for count in found.values()]


def words(photos: Path, weights: Path, out: Path) -> list[str]:
    settings = ["--set=data.workers=0", "--set=length=2 steps", "--set=schedule.warmup=0 steps"]
    return ["train", str(photos), "--from", str(weights), *settings, "--device=cpu", f"--out={out}"]


def test_a_run_reads_and_chooses_once(
    photos: Path,
    weights: Path,
    counted: Path,
    tmp_path: Path,
    vitral: Callable[..., tuple[int, str, str]],
) -> None:
    assert vitral(*words(photos, weights, tmp_path / "run"))[0] == 0
    assert counts(counted) == [ONCE]
    assert vitral("train", "--resume", tmp_path / "run")[0] == 0
    assert counts(counted) == [{"open_dataset": 1}]
    for slot in (tmp_path / "run" / "state").iterdir():
        slot.unlink()
    assert vitral("train", "--resume", tmp_path / "run")[0] == 0
    assert counts(counted) == [{"open_dataset": 1, "load_tensors": 1}]


def test_each_of_several_processes_reads_and_chooses_once(
    photos: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(COUNT, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "hook"), os.environ.get("PYTHONPATH", "")])
    environment = {"COUNTS": str(tmp_path / "counts"), "WEIGHTS": str(weights), "PYTHONPATH": path}
    command = [sys.executable, "-m", "vitral", *words(photos, weights, tmp_path / "run")]
    done = subprocess.run(
        [*command, "--devices=2"],
        env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert counts(tmp_path / "counts") == [ONCE] * 3, "the launcher and the two that it starts"
