"""What the benchmarks compare is alike on both sides."""

import argparse
import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
beside_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="needs timm")


def test_both_sides_of_scratch_compute_on_the_same_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    scratch = importlib.import_module("scratch")
    said: list[object] = []

    def trained(data: object, out: Path, *words: object, changes: object) -> dict[str, Any]:
        said.extend(words)
        return {"accuracy": 0.5, "samples": 10}

    monkeypatch.setattr(scratch, "trained", trained)
    scratch.ours(argparse.Namespace(photos="x", changes=[], seed=0), 1.5, tmp_path)
    assert said[said.index("--device") + 1] == scratch.DEVICE


def run(name: str, out: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, Any]:
    """What a benchmark wrote, run in this process."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr("sys.argv", [f"{name}.py", *words])
    record: ModuleType = importlib.import_module("record")
    monkeypatch.setattr(record, "RESULTS", out)
    importlib.import_module(name).main()
    (path,) = out.glob("*.json")
    figures: dict[str, Any] = json.loads(path.read_text())["figures"]
    return figures


@beside_timm
def test_the_gpus_benchmark_runs_through_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["speed", "--device", "cpu", "--models", "Ti/16", "--size", "32", "--batch", "2"]
    found = run("gpu", tmp_path, monkeypatch, *words, "--rounds", "2", "--calls", "1", "--plain")
    rows = found["rows"]
    assert [row["kind"] for row in rows["rows"]] == ["training", "forward"]
    for row in rows["rows"]:
        assert set(row["images_per_second"]) == {"vitral", "timm"}
        assert 0 < row["share_of_matrix_product"]["vitral"] < 1
        assert row["waits"] == []
    assert rows["left_out"] == []


@beside_timm
def test_steps_are_the_same_work_on_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--model", "Ti/16", "--size", "32", "--batch", "2", "--rounds", "2", "--peers", "timm"]
    found = run("training", tmp_path, monkeypatch, *words)
    assert set(found["rows"]) == {"vitral", "timm"}
    assert set(found["rows"]["vitral"]["seconds"]) == {"fp32", "bf16"}
    assert {"bf16", "bf16 written out"} < set(found["rows"]["timm"]["seconds"])
    for row in found["rows"].values():
        assert row["seconds"][row["best"]] == min(row["seconds"].values())
    assert found["rows"]["vitral"]["vitral_ratio"] == 1


@beside_timm
def test_costs_are_fitted_and_become_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, docs = tmp_path / "results", tmp_path / "docs"
    results.mkdir()
    docs.mkdir()
    words = ["--model", "Ti/16", "--largest", "Ti/16", "--size", "32", "--rounds", "3"]
    words += ["--sweeps", "resolution", "--points", "32", "64", "128"]
    found = run("cost", results, monkeypatch, *words)
    for kind in ("forward", "training"):
        kept = found["kinds"][kind]["resolution"]
        assert [row["tokens"] for row in kept["rows"]] == [5, 17, 65]
        assert all(row["memory"]["vitral"] > 0 for row in kept["rows"])
        exponents = kept["fits"]["all"]
        assert 0.9 < exponents["flops"]["exponent"] < 1.1
        low, high = exponents["seconds timm"]["interval"]
        assert low < exponents["seconds timm"]["exponent"] < high
    performance: ModuleType = importlib.import_module("performance")
    monkeypatch.setattr(performance, "RESULTS", results)
    page = docs / "performance.md"
    shown = (BENCHMARKS.parent / "docs" / "performance.md").read_text(encoding="utf-8")
    head = shown.split(performance.BEGIN)[0]
    page.write_text(head + performance.BEGIN + performance.END + "end", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["performance.py", "--docs", str(docs), "--check"])
    assert performance.main() == 1
    monkeypatch.setattr("sys.argv", ["performance.py", "--docs", str(docs)])
    assert performance.main() == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith(head) and text.endswith("end")
    assert "| 64 | 17 |" in text and "![Training step](performance-training.svg)" in text
    assert "<svg" in (docs / "performance-forward.svg").read_text(encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["performance.py", "--docs", str(docs), "--check"])
    assert performance.main() == 0


def test_an_exponent_is_that_of_the_power(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    cost = importlib.import_module("cost")
    x = [1.0, 2.0, 4.0, 8.0]
    exact = cost.exponent(x, [3 * value**1.5 for value in x])
    assert exact["exponent"] == pytest.approx(1.5)
    y = [1.0, 4.4, 15.0, 70.0]
    bent = cost.exponent(x, y)
    slope = sum((math.log(a) - 1.5 * math.log(2)) * math.log(b) for a, b in zip(x, y, strict=True))
    slope /= 5 * math.log(2) ** 2
    assert bent["exponent"] == pytest.approx(slope)
    low, high = bent["interval"]
    assert low < slope < high and low + high == pytest.approx(2 * slope)
    assert cost.exponent(x[:2], y[:2]) is None


def test_the_page_of_costs_is_that_of_the_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    performance = importlib.import_module("performance")
    monkeypatch.setattr("sys.argv", ["performance.py", "--check"])
    assert performance.main() == 0
