"""What a run does when its numbers or its memory give out, or when it gets no better."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from drawn import draw_folder
from planned import resolve, train
from vitral.errors import ModelError
from vitral.planning.plan import resume
from vitral.planning.request import Request
from vitral.training.display import Display
from vitral.training.recipe import Recipe, override

SMALL = ["data.workers=0", "precision=fp32", "schedule.warmup=0 epochs", "ema=0"]


class Notes(Display):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("data") / "photos", kinds=3, each=12)


def recipe(photos: Path, *changes: str) -> Recipe:
    asked = Request(data=str(photos), model="mu/8", size=32, batch=8, changes=[*SMALL, *changes])
    return resolve(asked)


def returns(given: Recipe, out: Path) -> int:
    """How often the run had to return; 4 where it gave up."""
    shown = Notes()
    try:
        train(given, out, display=shown)
    except ModelError:
        return 4
    return sum(note.startswith("returned") for note in shown.notes)


def test_half_the_rate_after_a_step_that_is_not_finite(photos: Path, tmp_path: Path) -> None:
    """The largest rate that is finite is searched for; twice and eight times it come back to it."""
    base = recipe(photos, "length=6 steps", "optimizer.clip=0", "evaluate_every=6 steps")

    def at(power: int) -> Recipe:
        return override(base, [f"optimizer.lr={2.0**power}"])

    low, high = 0, 120
    while high - low > 1:
        middle = (low + high) // 2
        fine = returns(at(middle), tmp_path / f"at{middle}") == 0
        low, high = (middle, high) if fine else (low, middle)
    assert returns(at(low + 1), tmp_path / "once") == 1
    assert returns(at(low + 3), tmp_path / "thrice") == 3
    assert returns(at(low + 4), tmp_path / "never") == 4
    assert returns(at(low), tmp_path / "fine") == 0
    expected = load_file(tmp_path / "fine" / "last" / "model.safetensors")
    for name in ("once", "thrice"):
        found = load_file(tmp_path / name / "last" / "model.safetensors")
        assert all(found[key].equal(value) for key, value in expected.items())


def test_it_returns_to_the_saved_state_and_not_to_the_start(photos: Path, tmp_path: Path) -> None:
    """The rate explodes in the middle: a rise to 2^100 that the warm-up reaches late."""
    given = recipe(photos, "length=40 steps", "optimizer.clip=0", "evaluate_every=1 steps")
    shown = Notes()
    rising = ["schedule.warmup=40 steps", "optimizer.lr=1e6", "optimizer.weight_decay=0.5"]
    with pytest.raises(ModelError, match="3 times with half the learning rate"):
        train(override(given, rising), tmp_path / "run", display=shown)
    steps = [int(note.split()[3]) for note in shown.notes if note.startswith("returned")]
    assert len(steps) == 3
    assert all(step > 0 for step in steps), shown.notes
    assert (tmp_path / "run" / "state").exists(), "what was saved stays for a look"


def test_a_run_that_gets_no_better_stops_early(photos: Path, tmp_path: Path) -> None:
    given = recipe(photos, "length=100 epochs", "patience=3", "optimizer.lr=1e-9")
    shown = Notes()
    run = train(given, tmp_path / "run", display=shown)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    scores = [line["val_accuracy"] for line in lines if "val_accuracy" in line]
    assert scores.index(max(scores)) == len(scores) - 4, "the best, and then three of patience"
    assert any(note.startswith("stopped early") for note in shown.notes)
    again = resume(tmp_path / "run", display=Notes())
    assert again.evaluation.accuracy == run.evaluation.accuracy


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from vitral.planning.plan import plan
from vitral.planning.request import Request
from vitral.training import loop
torch.set_num_threads(1)
changes = ["data.workers=0", "length=3 steps", "schedule.warmup=0 steps", "model.depth=4"]
changes += ["precision=fp32", "augment.mixup=0.5"]
asked = Request(data=sys.argv[1], model="Ti/8", size=128, batch=48, changes=changes)
torch.nn.Linear(8, 8)(torch.randn(2, 8)).sum().backward()
if room := int(sys.argv[3]) * 1_000_000:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + room, held + room))
planned = plan(asked)
loop.train(planned.recipe, planned.data, None, Path(sys.argv[2]))
"""


@pytest.mark.proof
@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory as Linux does")
def test_too_little_memory_cuts_the_step_into_parts_and_learns_the_same(tmp_path: Path) -> None:
    photos = draw_folder(tmp_path / "photos", kinds=3, each=20)
    records = []
    for room in (0, 950):
        run = tmp_path / str(room)
        words = [sys.executable, "-c", LIMITED, photos, run, room]
        done = subprocess.run(
            [str(word) for word in words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert ("it remains a step of 48" in done.stderr) == bool(room), done.stderr
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        records.append([line["loss"] for line in lines if "loss" in line])
    assert records[0] == pytest.approx(records[1], rel=1e-5)
