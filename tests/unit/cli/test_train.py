import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer

from vitral.cli import train
from vitral.errors import MachineError
from vitral.planning import benchmark, plan
from vitral.training import run_folder
from vitral.training.distributed import launch

Vitral = Callable[..., tuple[int, str, str]]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words of each launch, which starts nothing."""
    found: list[list[str]] = []

    def note(processes: int, words: list[str], *, device: str | None) -> int:
        found.append(words)
        return 0

    monkeypatch.setattr(launch, "launch", note)
    return found


def test_torchrun_refuses_to_measure_the_batch(
    vitral: Vitral, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "some")
    code, _, err = vitral("train", photos, "--batch", "auto", "--out", tmp_path / "run")
    assert code == 2
    assert "--batch auto measures before the processes start" in err
    assert "--set accumulate=PARTS" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("batch", [["--batch", "auto"], ["--batch=auto"]])
def test_the_processes_get_what_was_measured(
    vitral: Vitral,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    launched: list[list[str]],
    batch: list[str],
) -> None:
    monkeypatch.setattr(benchmark, "fastest_micro_batch", lambda *_: 4)
    words = ["--set", "data.batch=24", "--model", "mu/8", "--size=32", "--out", str(tmp_path / "r")]
    asked = ["train", str(photos), *batch, *words]
    code, _, err = vitral(*asked, "--devices", 2)
    assert code == 0, err
    assert launched == [["train", str(photos), *words, "--set=accumulate=3"]]
    code, out, err = vitral(*asked, "--devices=2", "--dry-run", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["recipe"]["accumulate"], told["origins"]["accumulate"]) == (3, "--batch auto")


def test_a_step_too_small_for_its_parts_starts_nothing(
    vitral: Vitral, photos: Path, tmp_path: Path, launched: list[list[str]]
) -> None:
    words = ("--batch", 8, "--model", "mu/8", "--size", 32, "--set", "accumulate=8")
    asked = ("train", photos, *words, "--devices", 2, "--out", tmp_path / "run")
    for more in ((), ("--dry-run",)):
        code, _, err = vitral(*asked, *more)
        assert code == 2
        assert "A step of 8 images cannot be shared by 2 processes in 8 parts each" in err
    assert not launched


@pytest.mark.parametrize(("codes", "starts"), [([5, 5, 0], 3), ([130], 1), ([5, 130], 2), ([2], 1)])
def test_processes_start_again_for_memory_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codes: list[int], starts: int
) -> None:
    """Whatever ends them after one of them asked for smaller parts."""
    run, begun = tmp_path / "run", list[list[str]]()

    def launch(_: int, words: list[str], *, device: str | None) -> int:
        begun.append(words)
        run_folder.request_accumulation(run, 2 ** len(begun))
        return codes[len(begun) - 1]

    monkeypatch.setattr("vitral.training.distributed.launch.launch", launch)
    options = train.RunOptions(
        out=run, device=None, devices=2, shard=True, log=[], fastest=False, started=False
    )
    with pytest.raises(typer.Exit) as ended:
        train._launch(options, run, ["train", "photos"])
    assert ended.value.exit_code == codes[-1]
    again = ["train", "--resume", str(run), "--shard"]
    assert begun == [["train", "photos"], *[again] * (starts - 1)]


@pytest.mark.parametrize("more", [[], ["--devices", "2"], ["--dry-run"]])
def test_sharding_where_torch_cannot(
    vitral: Vitral,
    launched: list[list[str]],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
) -> None:
    """The command says it before it looks for images; Python, before a folder is made."""
    monkeypatch.setattr(torch.cpu.Stream, "record_event", None, raising=False)
    monkeypatch.delattr(torch.cpu.Stream, "record_event")
    words = ["--shard", "--device", "cpu", *more]
    code, _, err = vitral("train", tmp_path / "absent", *words, "--out", tmp_path / "run")
    assert code == MachineError.exit_code
    assert "Leave --shard out" in err
    assert not launched and not (tmp_path / "run").exists()
    with pytest.raises(MachineError, match="Leave --shard out"):
        plan.train(photos, size=32, shard=True, device="cpu", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
