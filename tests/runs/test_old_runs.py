"""What an older Vitral wrote is read, answers as it did, and goes on to the same numbers."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


old = load("old_runs")
EXPECTED = json.loads((old.FIXTURES / "expected.json").read_text(encoding="utf-8"))
RUNS = pytest.mark.parametrize("name", old.COMMANDS)


@pytest.fixture(scope="module")
def same_machine() -> bool:
    """Where bits are demanded; elsewhere numbers are nearly equal."""
    return bool(EXPECTED["machine"] == old.recordings.machine())


def held(recorded: Any, now: Any, bits: bool, where: str = "", *, rounding: float = 1e-3) -> None:
    """Everything that was recorded stands there still; new keys may stand beside it."""
    if isinstance(recorded, dict):
        assert recorded.keys() <= now.keys(), where
        for key, value in recorded.items():
            held(value, now[key], bits, f"{where}.{key}", rounding=rounding)
    elif isinstance(recorded, list):
        assert len(recorded) == len(now), where
        for index, value in enumerate(recorded):
            held(value, now[index], bits, f"{where}[{index}]", rounding=rounding)
    elif bits or not isinstance(recorded, float):
        assert recorded == now, where
    else:
        assert math.isclose(recorded, now, rel_tol=rounding, abs_tol=rounding / 10), where


def same_end(expected: dict[str, Any], now: dict[str, Any], bits: bool) -> None:
    assert old.recordings.difference("base", expected, now, bits) is None


@RUNS
def test_an_old_artifact_answers_as_it_did(name: str, tmp_path: Path, same_machine: bool) -> None:
    recorded, now = EXPECTED["answers"][name], old.answers(name, tmp_path)
    held(recorded["logits"], now["logits"], same_machine)
    if same_machine:  # probabilities are computed in float64 now, and then rounded to float32
        held(recorded, now, bits=False, rounding=1e-6)
        return
    held(recorded["evaluate"]["loss"], now["evaluate"]["loss"], bits=False)
    for before, after in zip(recorded["predict"], now["predict"], strict=True):
        scores = [{x["label"]: x["score"] for x in answer["top"]} for answer in (before, after)]
        held(*scores, bits=False)


@RUNS
def test_an_old_run_goes_on_to_the_same_end(name: str, tmp_path: Path, same_machine: bool) -> None:
    same_end(EXPECTED["ends"][name], old.finish(name, tmp_path), same_machine)
    run = tmp_path / name
    (run / "report.html").unlink()
    old.vitral(tmp_path, "report", run, "--device=cpu")
    assert "<html" in (run / "report.html").read_text(encoding="utf-8")


def test_an_old_finished_run_has_its_page_again(tmp_path: Path) -> None:
    run = old.copy("finished", tmp_path)
    old.vitral(tmp_path, "report", run, "--device=cpu")
    assert "23.4" in (run / "report.html").read_text(encoding="utf-8")


def test_an_old_recipe_repeats_its_run(tmp_path: Path, same_machine: bool) -> None:
    same_end(EXPECTED["again"], old.repeat(tmp_path), same_machine)


@RUNS
def test_every_value_of_an_old_recipe_is_kept(name: str, tmp_path: Path) -> None:
    path = old.FIXTURES / name / "recipe.json"
    recorded = json.loads(path.read_text(encoding="utf-8"))["recipe"]
    words: list[object] = ["train", old.data(name, tmp_path), "--recipe", path]
    if recorded.pop("start"):
        words += ["--from", old.FIXTURES / "finished"]
    told = old.vitral(tmp_path, *words, "--dry-run", "--json", "--device=cpu")
    now = json.loads(told)["recipe"]
    if name == "multi-label":
        del recorded["data"]["source"]
    for recipe in (recorded, now):
        del recipe["model"]["classes"]  # which the images decide
    held(recorded, now, bits=True)


@pytest.mark.parametrize("network", EXPECTED["networks"])
def test_tensors_have_the_names_that_files_know(network: str) -> None:
    assert old.names(network) == EXPECTED["networks"][network]
