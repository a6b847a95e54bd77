"""What is measured is real work, and stays within the time, the memory and the part."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from networks import TINY, tiny_bit

from vitral import machine
from vitral.data.datasets import open_dataset
from vitral.errors import MachineError
from vitral.planning import benchmark
from vitral.planning.benchmark import Benchmark, fastest_micro_batch, measure
from vitral.planning.memory import estimate
from vitral.specs import Dropouts, ImageSpec, counts
from vitral.training.recipe import Classification, Data, Optimizer, Recipe, Tune

CPU = torch.device("cpu")
DIGITS = open_dataset("digits")
RECIPE = Recipe(
    model=replace(TINY, size=(32, 32), classes=10),
    images=ImageSpec(size=(32, 32)),
    data=Data(source="digits", batch=16),
    noise=Dropouts(drop_path=0.1),
    ema=0.9,
)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine, each size is tried, and once."""
    monkeypatch.setattr(benchmark, "SECONDS", 1000.0)
    monkeypatch.setattr(benchmark, "REPEATS", 1)


def test_a_benchmark_learns_and_validates() -> None:
    tried = Benchmark.begun(RECIPE, CPU)
    assert tried is not None
    before = {name: p.detach().clone() for name, p in tried.objective.named_parameters()}
    tried.learn(3)
    tried.validate(2)
    assert tried.objective.training
    tried.update()
    after = dict(tried.objective.named_parameters())
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert all(not torch.equal(tried.ema.tensors[name], p) for name, p in after.items())


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        replace(RECIPE, tune=Tune("probe")),
        replace(RECIPE, tune=Tune("lora", rank=2), precision="bf16"),
        replace(RECIPE, checkpointing=True, optimizer=Optimizer(kind="lamb", clip=0.0)),
        replace(RECIPE, objective=Classification(loss="bce"), ema=0.0),
        replace(RECIPE, model=tiny_bit(size=(32, 32)), noise=Dropouts()),
    ],
    ids=["full", "probe", "lora", "lamb", "bce", "bit"],
)
def test_every_kind_of_run_is_measured(recipe: Recipe) -> None:
    recipe = replace(recipe, model=replace(recipe.model, classes=10))
    found = measure(recipe, DIGITS, CPU, 5)
    assert found is not None
    assert found.images == 5
    assert min(found.forward, found.backward, found.update, found.reading) > 0
    assert found.memory > 4 * counts.parameters(recipe.model)


def test_a_large_network_is_measured_on_fewer_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "SECONDS", 0.0)
    found = measure(RECIPE, DIGITS, CPU, 8)
    assert found is not None
    assert found.images == 1


def test_what_does_not_fit_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = estimate(RECIPE, 1, CPU)
    room = needed.total + 3.5 * needed.activations
    recipe = replace(RECIPE, precision="fp32")
    monkeypatch.setattr(benchmark, "USABLE", 1.0)
    monkeypatch.setattr(machine, "free_memory", lambda device: int(room))
    found = measure(recipe, DIGITS, CPU, 8)
    assert found is not None
    assert found.images == 4
    monkeypatch.setattr(machine, "free_memory", lambda device: needed.total - 1)
    assert measure(recipe, DIGITS, CPU, 8) is None
    huge = replace(recipe, model=replace(RECIPE.model, width=1 << 23, heads=1, mlp_width=1 << 23))
    assert Benchmark.begun(huge, CPU) is None
    with pytest.raises(MachineError, match="does not fit into the memory of cpu"):
        fastest_micro_batch(huge, CPU, 4)


@pytest.mark.parametrize(
    ("seconds", "most", "expected"),
    [
        ({1: 1.0, 2: 1.0, 4: 1.0, 8: 1.9}, 8, 8),  # always more images per second
        ({1: 1.0, 2: 1.0, 4: 2.2, 8: 1.0}, 8, 2),  # 4 is slower by more than 5 %: the search ends
        ({1: 1.0, 2: 1.0, 4: 2.04, 8: 3.0}, 8, 8),  # by 2 %: it goes on
        ({1: 1.0, 2: 1.0, 4: 1.0, 8: None}, 8, 4),  # 8 do not fit
        ({1: 1.0, 2: 1.0, 4: 1.0}, 7, 4),
        ({1: 1.0}, 1, 1),
    ],
)
def test_the_fastest_micro_batch(
    seconds: dict[int, float | None], most: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(self: Benchmark, part: partial[None], most: float) -> list[float]:
        took = seconds[part.args[0]]
        return [] if took is None else [9.0, took]

    monkeypatch.setattr(Benchmark, "seconds", told)  # a clock that every machine agrees on
    assert fastest_micro_batch(RECIPE, CPU, most) == expected


def test_the_end_of_memory_is_an_answer_and_other_errors_are_not() -> None:
    tried = Benchmark.begun(RECIPE, CPU)
    assert tried is not None
    assert tried.seconds(lambda: torch.empty(1 << 60, dtype=torch.uint8).sum() and None, 1.0) == []
    with pytest.raises(RuntimeError, match="shapes"):
        tried.seconds(lambda: (torch.ones(2, 3) @ torch.ones(2, 3)).sum() and None, 1.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_measured(tmp_path: Path) -> None:
    device = torch.device("cuda")
    recipe = replace(RECIPE, precision="bf16")
    found = measure(recipe, DIGITS, device, 64)
    assert found is not None
    needed = estimate(recipe, 64, device)
    assert found.images == 64
    assert 0.5 * needed.total < found.memory < 2 * needed.total
    assert fastest_micro_batch(RECIPE, device, 256) >= 64
    assert torch.cuda.max_memory_allocated() < needed.total
