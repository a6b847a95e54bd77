"""What the benchmarks compare is alike on both sides."""

import argparse
import importlib.util
import json
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
    for row in found["rows"].values():
        assert set(row["seconds"]) == {"fp32", "bf16"}
        assert row["seconds"][row["best"]] == min(row["seconds"].values())
    assert found["rows"]["vitral"]["vitral_ratio"] == 1
