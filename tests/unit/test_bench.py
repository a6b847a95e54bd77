"""Measurements are of what was asked, and what cannot be measured says why."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vitral import machine
from vitral.bench import bench
from vitral.engines.measure import interleaved
from vitral.errors import ModelError, UsageError

Vitral = Callable[..., tuple[int, str, str]]
quiet = [].append


def test_calls_take_turns_after_a_warm_up() -> None:
    order: list[str] = []
    calls = [lambda: order.append("a"), lambda: order.append("b")]
    seconds = interleaved(calls, 2)
    assert order == ["a", "b"] * 3 and [len(each) for each in seconds] == [2, 2]


def test_each_row_has_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitral.bench.LEAST_SECONDS", 0)
    monkeypatch.setattr("vitral.bench.ROUNDS", 2)
    result = bench("mu/16", batches=(1, 3), engine="torch", precision="fp32", announce=quiet)
    assert [(row.engine, row.precision, row.batch) for row in result.rows] == [
        ("torch", "fp32", 1),
        ("torch", "fp32", 3),
    ]
    for row in result.rows:
        assert row.p50 and row.p99 and row.images_per_second and row.of_matrix_rate
        assert row.p99 >= row.p50 and row.images_per_second == pytest.approx(row.batch / row.p50)
        share = result.flops * row.images_per_second / result.matrix_rates["fp32"]
        assert row.of_matrix_rate == pytest.approx(share)
        assert row.peak_memory and row.peak_memory > 50e6


@pytest.mark.proof
def test_a_run_as_json_and_as_a_table(
    trained: Path, vitral: Vitral, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitral.bench.LEAST_SECONDS", 0)
    monkeypatch.setattr("vitral.bench.ROUNDS", 1)
    monkeypatch.setattr(machine, "multiplies_bf16", lambda: False)
    arguments = ("bench", trained / "run", "--batch", "2", "--no-memory")
    code, out, _ = vitral(*arguments, "--precision", "bf16", "--json")
    assert code == 0
    rows = json.loads(out)["rows"]
    assert [row["engine"] for row in rows] == ["torch", "openvino"]
    assert rows[0]["images_per_second"] > 0 and rows[0]["peak_memory"] is None
    assert rows[1]["images_per_second"] is None
    code, out, _ = vitral(*arguments, "--engine", "torch")
    assert code == 0 and "images/s" in out and "of rate" in out


def test_what_cannot_be_measured(vitral: Vitral) -> None:
    with pytest.raises(UsageError, match="at least one image"):
        bench("mu/16", batches=(0,))
    with pytest.raises(UsageError, match="the cores that there are here"):
        bench("mu/16", threads=10_000)
    with pytest.raises(UsageError, match="not 'fp8'"):
        bench("mu/16", precision="fp8")
    with pytest.raises(ModelError, match="mu"):
        bench("mu-16x", announce=quiet)
    assert vitral("bench", "mu/16", "--batch", "many")[0] == 2
