"""Several processes learn what one learns: the same losses, every image counted once, resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from drawn import draw_folder
from typed import typed
from vitral.training import state

SETTINGS = [
    "--model=mu/8",
    "--size=32",
    "--batch=12",
    "--set=length=24 steps",
    "--set=schedule.warmup=4 steps",
    "--set=evaluate_every=8 steps",
    "--set=augment.mixup=0.2",
    "--set=noise.drop_path=0.2",
    "--set=noise.patch_dropout=0.25",
    "--set=precision=fp32",
    "--set=data.workers=0",
]


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "vitral", "train", *map(str, words)]


def finish(*words: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def losses(run: Path) -> list[tuple[float, ...]]:
    """Every number of metrics.jsonl that learning decides, in its order."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    keys = ("step", "loss", "lr", "val_accuracy", "val_loss")
    return [tuple(line[key] for key in keys if key in line) for line in lines]


def same(a: Path, b: Path) -> None:
    first, second = losses(a), losses(b)
    assert len(first) == len(second)
    for one, two in zip(first, second, strict=True):
        assert one == pytest.approx(two, rel=1e-6)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("many") / "photos", kinds=3, each=21)


@pytest.fixture(scope="module")
def alone(data: Path) -> Path:
    typed("train", data, *SETTINGS, "--out", data.parent / "alone")
    return data.parent / "alone"


@pytest.mark.parametrize("options", [["--devices=2"], ["--devices=2", "--shard"]], ids=str)
def test_two_processes_learn_what_one_learns(
    data: Path, alone: Path, tmp_path: Path, options: list[str]
) -> None:
    done = finish(data, *SETTINGS, *options, "--out", tmp_path / "run")
    same(alone, tmp_path / "run")
    card, expected = (
        json.loads((run / "best" / "model.json").read_text())["metrics"]
        for run in (tmp_path / "run", alone)
    )
    assert card["samples"] == expected["samples"] == 12
    rows = (tmp_path / "run" / "predictions.csv").read_text().splitlines()
    assert len(rows) == len(set(rows)) == 13
    assert done.stderr.count("data   ") == 1, "one process speaks"


@pytest.mark.parametrize("changes", [["accumulate=4"], ["checkpointing=true"]], ids=str)
def test_parts_and_recomputed_blocks_change_nothing(
    data: Path, alone: Path, tmp_path: Path, changes: list[str]
) -> None:
    words = [f"--set={change}" for change in changes]
    typed("train", data, *SETTINGS, *words, "--out", tmp_path / "run")
    same(alone, tmp_path / "run")


def stop_after(lines: int, run: Path, *words: object) -> int:
    """Ctrl-C once that many lines are written; returns the exit code."""
    process = subprocess.Popen(
        command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    log = run / "metrics.jsonl"
    while process.poll() is None and (not log.exists() or len(log.read_text().split()) < lines):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    return process.wait(timeout=60)


def test_a_sharded_state_goes_on_in_one_process_and_the_other_way_round(
    data: Path, alone: Path, tmp_path: Path
) -> None:
    run, long = tmp_path / "run", "--set=length=24 steps"
    code = stop_after(60, run, data, *SETTINGS, long, "--shard", "--devices=2", "--out", run)
    assert code == 130
    assert any((run / "state" / slot).is_dir() for slot in state.SLOTS)
    saved = state.load(run / "state")
    assert saved is not None
    assert 0 < saved[1].step < 24
    typed("train", "--resume", run)
    same(alone, run)


def test_a_killed_process_under_torchrun_goes_on_by_itself(
    data: Path, alone: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = [data, *SETTINGS, "--set=save_seconds=0", "--out", run]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    torchrun += ["--max-restarts=1", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    environment = os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    process = subprocess.Popen(
        [*torchrun, "-m", "vitral", "train", *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log = run / "metrics.jsonl"
    while process.poll() is None and (not log.exists() or len(log.read_text().split()) < 40):
        time.sleep(0.01)
    listing = subprocess.run(
        ["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True
    )
    workers = [
        int(line.split()[0])
        for line in listing.stdout.splitlines()
        if str(run) in line and "torch.distributed.run" not in line
    ]
    assert len(workers) == 2, process.communicate()[0]
    os.kill(workers[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "resuming" in output
    same(alone, run)


TOO_SMALL = """
import os
if "RANK" in os.environ:  # the processes that learn, not their launcher
    import torch
    from vitral.training.objectives.classification import ClassificationObjective
    learn = ClassificationObjective.losses
    def losses(self, outputs, *others):
        if os.environ["RANK"] == "1" and torch.is_grad_enabled() and len(outputs[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return learn(self, outputs, *others)
    ClassificationObjective.losses = losses
"""


@pytest.mark.parametrize(
    "way",
    [
        "--devices",
        pytest.param("--devices --shard", marks=pytest.mark.proof),
        pytest.param("torchrun", marks=pytest.mark.proof),
    ],
)
def test_one_process_without_memory_starts_all_again_in_smaller_parts(
    data: Path, alone: Path, tmp_path: Path, way: str
) -> None:
    """6 images per process, and the second process has room for 2: twice, and then it learns."""
    (tmp_path / "sitecustomize.py").write_text(TOO_SMALL)
    run = tmp_path / "run"
    start = [sys.executable, "-m"]
    if way == "torchrun":
        start += ["torch.distributed.run", "--nproc-per-node=2", "--max-restarts=2"]
        start += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m"]
    start += ["vitral", "train"]
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    options = [] if way == "torchrun" else way.replace("devices", "devices=2").split()
    done = subprocess.run(
        [*start, str(data), *SETTINGS, *options, "--out", str(run)],
        env=os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("ended with 6 images at a time") == 1
    assert done.stderr.count("ended with 3 images at a time") == 1
    assert "4 parts per process, 2 processes, of 2 images or fewer" in done.stderr
    same(alone, run)


@pytest.mark.proof
def test_two_processes_end_at_the_same_bits_again(data: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        finish(data, *SETTINGS, "--devices=2", "--out", tmp_path / name)
    first, second = (
        load_file(tmp_path / name / "last" / "model.safetensors") for name in ("a", "b")
    )
    assert all(first[key].equal(second[key]) for key in first)


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["lamb", "sgd"])
def test_norms_of_a_sharded_network_are_those_of_the_whole(
    data: Path, tmp_path: Path, kind: str
) -> None:
    """LAMB's trust ratio and the clipping need norms over all processes."""
    changes = [f"--set=optimizer.kind={kind}", "--set=optimizer.clip=0.1"]
    finish(data, *SETTINGS, *changes, "--out", tmp_path / "alone")
    finish(data, *SETTINGS, *changes, "--devices=2", "--shard", "--out", tmp_path / "run")
    same(tmp_path / "alone", tmp_path / "run")


@pytest.mark.proof
def test_two_machines_of_two_processes_share_the_weights_inside_each(
    data: Path, alone: Path, tmp_path: Path
) -> None:
    """HSDP: sharded inside a machine, copied between them; here both are this one."""
    run = tmp_path / "run"
    words = ["-m", "vitral", "train", *map(str, [data, *SETTINGS, "--shard", "--out", run])]
    environment = os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
    agents = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nnodes=2",
                "--nproc-per-node=2",
                "--rdzv-backend=c10d",
                "--rdzv-endpoint=localhost:29517",
                "--rdzv-id=two",
                *words,
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    for agent in agents:
        output, _ = agent.communicate(timeout=300)
        assert agent.returncode == 0, output
    same(alone, run)


def test_a_probe_of_a_sharded_network_is_that_of_a_whole_one(
    data: Path, alone: Path, tmp_path: Path
) -> None:
    """51 images in batches of 64: one process has fewer to look at than the other."""
    words = [data, "--from", alone, "--tune", "probe", "--set=data.workers=0"]
    typed("train", *words, "--out", tmp_path / "one")
    finish(*words, "--devices=2", "--shard", "--out", tmp_path / "two")
    one, two = (
        load_file(tmp_path / name / "best" / "model.safetensors") for name in ("one", "two")
    )
    assert all(one[key].sub(value).abs().max() <= 1e-5 for key, value in two.items())
    before = load_file(alone / "best" / "model.safetensors")
    assert not one["head.weight"].equal(before["head.weight"])


def test_a_sharded_run_stopped_before_its_validation_goes_on(
    data: Path, alone: Path, tmp_path: Path
) -> None:
    """What is owed is counted first, and must not spoil the step after it."""
    run = tmp_path / "run"
    words = [data, *SETTINGS, "--set=evaluate_every=1 steps", "--shard", "--out", run]
    assert stop_after(60, run, *words) == 130
    finish("--resume", run, "--shard")
    assert losses(run)[-2][1] == pytest.approx(losses(alone)[-2][1], rel=1e-6)


def workers_of(run: Path) -> list[int]:
    """Processes that name the run folder, without the one that launched them."""
    listing = subprocess.run(
        ["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True
    )
    found = [line for line in listing.stdout.splitlines() if str(run) in line]
    return [int(line.split()[0]) for line in found if "--devices" not in line]


@pytest.mark.skipif(sys.platform != "linux", reason="processes follow their parent on Linux")
@pytest.mark.parametrize("twice", [True, False], ids=["ctrl-c twice", "kill -9 of the launcher"])
def test_a_launcher_that_leaves_takes_its_processes_along(
    data: Path, tmp_path: Path, twice: bool
) -> None:
    run = tmp_path / "run"
    words = command(data, *SETTINGS, "--set=length=100000 steps", "--devices=2", "--out", run)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = run / "metrics.jsonl"
    while process.poll() is None and not log.exists():
        time.sleep(0.01)
    assert len(workers_of(run)) == 2
    if twice:
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
        process.send_signal(signal.SIGINT)
    else:
        process.kill()
    assert process.wait(timeout=30) == (130 if twice else -signal.SIGKILL)
    for _ in range(100):
        if not workers_of(run):
            return
        time.sleep(0.1)
    pytest.fail("a process outlived its launcher by 10 s")
