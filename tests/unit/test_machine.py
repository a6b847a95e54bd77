import json
import os
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from vitral import machine

CPU = torch.device("cpu")


def test_a_working_environment_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)  # such builds ask for a GPU
    found = machine.survey()
    assert found.problems == []
    assert found.facts["torch"] == metadata.version("torch")
    assert "cores" in found.facts["cpu"]
    assert json.loads(json.dumps(found.to_dict()))["ready"] is True


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_packages", lambda: ("numpy", "not-a-package"))
    monkeypatch.setattr(machine, "NEEDED_DISK", 1 << 80)
    problems = " ".join(machine.survey().problems)
    assert "not-a-package is not installed" in problems
    assert "GB are free" in problems


def test_a_build_for_gpus_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for cuda, said in ((None, False), ("12.4", True)):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        problems = " ".join(machine.survey().problems)
        assert ("built for CUDA 12.4 but finds no usable GPU" in problems) == said


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path("/proc"))
    assert any("not writable" in problem for problem in machine.survey().problems)


def test_the_peak_is_seen_and_forgotten() -> None:
    machine.forget_peak(CPU)
    before = machine.peak_memory(CPU)
    block = np.ones(25_000_000)  # 200 MB
    del block
    assert machine.peak_memory(CPU) - before == pytest.approx(2e8, rel=0.1)
    machine.forget_peak(CPU)
    assert machine.peak_memory(CPU) - before < 1e8


def test_free_memory_is_no_more_than_the_machine_has() -> None:
    assert 1e7 < machine.free_memory(CPU) < 1e14
    assert machine.free_memory(CPU) <= (machine.total_memory() or sys.maxsize)


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5}, raising=False)
    assert machine.cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cores() == (os.cpu_count() or 1)


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux tells of its processor there")
@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="torch tells from 2.11 on")
def test_the_processor_is_what_torch_takes_it_for() -> None:
    told = torch.cpu.get_capabilities()
    fast = bool(told.get("amx_bf16") or told.get("avx512_bf16"))
    assert machine.multiplies_bf16() == fast


def test_only_words_about_memory_are_taken_for_its_end() -> None:
    assert machine.is_out_of_memory(MemoryError())
    assert machine.is_out_of_memory(torch.OutOfMemoryError())
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert machine.is_out_of_memory(error.value)
    assert not machine.is_out_of_memory(RuntimeError("shapes do not match"))
