"""The numbers of a dry run against the run itself."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import TINY

from vitral import machine
from vitral.data.datasets import open_dataset
from vitral.data.sources import Dataset
from vitral.errors import UsageError
from vitral.planning import benchmark
from vitral.planning.dry_run import check_steps, dry_run, summary_lines
from vitral.specs import ImageSpec, counts
from vitral.training import state
from vitral.training.duration import epochs, steps
from vitral.training.recipe import Data, Optimizer, Recipe, Tune

CPU = torch.device("cpu")
RECIPE = Recipe(
    model=replace(TINY, size=(32, 32), classes=10),
    images=ImageSpec(size=(32, 32)),
    data=Data(source="digits", batch=64),
    length=epochs(3),
    evaluate_every=steps(20),
    ema=0.99,
)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return open_dataset("digits")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """One measurement of each kind, on one image."""
    monkeypatch.setattr(benchmark, "SECONDS", 0.0)


def test_arithmetic_of_a_run(digits: Dataset, tmp_path: Path) -> None:
    found = dry_run(RECIPE, digits, CPU, out=tmp_path / "not" / "yet")
    epoch = len(digits.train) // 64
    assert found.parameters == found.trainable == counts.parameters(RECIPE.model)
    assert found.gflops == counts.flops(RECIPE.model) / 1e9
    assert (found.steps, found.images) == (3 * epoch, 3 * epoch * 64)
    assert (found.validations, found.validated) == (math.ceil(3 * epoch / 20), len(digits.val))
    assert found.part == 64
    assert found.state_bytes == 4 * found.parameters * 4  # weights, average, two moments
    assert found.disk_bytes == 3 * found.state_bytes + 2 * 4 * found.parameters
    assert found.free_disk == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.05)
    seen = found.measured
    assert seen is not None
    assert found.step_seconds is not None
    assert found.seconds is not None
    assert found.step_seconds >= 64 * seen.backward + seen.update
    assert found.seconds >= found.steps * found.step_seconds
    assert json.loads(json.dumps(found.to_dict()))["memory"]["total"] == found.memory.total


@pytest.mark.parametrize(
    ("changes", "processes", "part", "ran"),
    [
        ({"accumulate": 3}, 1, 22, 3 * 22),
        ({"accumulate": 2}, 4, 8, 3 * 22),
        ({"tune": Tune("probe")}, 1, 64, 1),
        ({"length": steps(30)}, 1, 64, 30),
        ({"data": Data(source="digits", batch=5000)}, 1, 1438, 3),
    ],
)
def test_parts_and_steps(
    digits: Dataset,
    changes: dict[str, Any],
    processes: int,
    part: int,
    ran: int,
) -> None:
    found = dry_run(replace(RECIPE, **changes), digits, CPU, processes)
    assert (found.part, found.steps) == (part, ran)
    if "tune" in changes:
        assert found.images == len(digits.train)
        assert found.trainable == 10 * 32 + 10


def test_what_would_end_the_run_is_refused(digits: Dataset) -> None:
    thin = replace(RECIPE, accumulate=33)
    with pytest.raises(UsageError, match="64 images cannot be shared by 2 processes in 33 parts"):
        dry_run(thin, digits, CPU, 2)
    few = replace(RECIPE, data=Data(source="digits", batch=5000), accumulate=800)
    with pytest.raises(UsageError, match="step of 1438 images"):
        check_steps(few, digits, 2)
    check_steps(replace(thin, tune=Tune("probe")), digits, 2)
    with pytest.raises(UsageError, match="warm"):
        check_steps(replace(RECIPE, length=steps(1)), digits)


def test_a_sharded_process_holds_its_piece(digits: Dataset) -> None:
    whole = dry_run(RECIPE, digits, CPU, 4)
    piece = dry_run(RECIPE, digits, CPU, 4, shard=True)
    assert piece.memory.weights == whole.memory.weights // 4
    assert piece.memory.activations == whole.memory.activations
    assert piece.state_bytes == pytest.approx(whole.state_bytes, abs=16)


def test_the_terminal_is_told(digits: Dataset) -> None:
    found = dry_run(RECIPE, digits, CPU, 2)
    text = "\n".join(summary_lines(found))
    assert "66 steps, 4,224 images seen; 4 validations of 359 images" in text
    assert "with 32 images at once" in text
    assert "2 processes" in text
    assert "does not fit" not in text
    assert "may not fit" not in text
    tight = replace(found, free_memory=found.memory.total - 1, free_disk=1, measured=None)
    text = "\n".join(summary_lines(tight))
    assert "may not fit: try --set accumulate=4" in text
    assert "choose another --out" in text
    assert "not measured" in text


def test_what_does_not_fit_is_told_by_the_estimate_alone(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "free_memory", lambda device: 1_000)
    found = dry_run(RECIPE, digits, CPU)
    assert found.measured is found.seconds is found.step_seconds is None
    assert found.memory.total > 1_000


@pytest.mark.parametrize("kind", ["adamw", "sgd", "lamb"])
def test_a_saved_state_has_the_size_that_was_told(digits: Dataset, kind: Any) -> None:
    recipe = replace(RECIPE, optimizer=Optimizer(kind=kind))
    tried = benchmark.Benchmark.begun(recipe, CPU)
    assert tried is not None
    tensors = state.gather(tried.objective, tried.ema, tried.optimizer)
    held = sum(tensor.nbytes for tensor in tensors.values() if tensor.ndim)
    assert dry_run(recipe, digits, CPU).state_bytes == held
