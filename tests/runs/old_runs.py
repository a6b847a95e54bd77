"""Four small runs that commit f71e8d9 made, and what it said of them: tests/fixtures/f71e8d9.

    PYTHONPATH=OLD/src python tests/runs/old_runs.py make      the runs, in /tmp/f71e8d9
    PYTHONPATH=OLD/src python tests/runs/old_runs.py record    what it answers, as expected.json

OLD is a checkout of that commit. Everything is asked by the command line and by `vitral.load`, so
that it can be asked of any later state; the pictures are drawn again wherever they are needed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parent / "fixtures" / "f71e8d9"
MADE_IN = Path("/tmp/f71e8d9")  # which their recipe.json names, and no machine needs to have
USELESS = ("report.html", "views.jpg", ".lock")  # large, or empty

TINY = ["--model=mu/8", "--set=model.width=16", "--set=model.mlp_width=32", "--set=model.depth=2"]
ALL = ["--set=precision=fp32", "--set=data.workers=0", "--device=cpu"]
SHORT = ["--set=length=30 steps", "--set=schedule.warmup=4 steps", "--set=evaluate_every=6 steps"]
COMMANDS = {
    "finished": ["digits", *TINY, "--size=24", "--set=ema=0.9", "--set=select=last"],
    "interrupted": [
        "shapes",
        *TINY,
        "--size=32",
        "--set=data.count=240",
        "--set=model.positions=learned2d",
        "--set=model.layer_scale=0.1",
        "--set=model.registers=2",
        "--set=model.pool=map",
        "--set=augment.mixup=0.2",
        "--set=noise.drop_path=0.2",
        "--set=noise.patch_dropout=0.25",
        "--set=ema=0.9",
        "--set=accumulate=2",
    ],
    "lora": ["digits", "--recipe=lora", "--from=finished", "--tune=lora:4", "--batch=32"],
    "multi-label": [
        "drawn/multi_label/labels.csv",
        *TINY,
        "--size=32",
        "--batch=16",
        "--set=objective.loss=bce",
        "--set=optimizer.kind=lamb",
    ],
}
STOPPED = {"interrupted", "lora", "multi-label"}  # by Ctrl-C, about half-way
# every kind of part that a network may have, for the names in its files
NETWORKS = [
    "mu/8",
    "R+Ti/16",
    "BiT-R26x1",
    "deit_small_distilled_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_small_patch16_dinov3",
    "vit_base_patch16_siglip_224",
]


def neighbour(name: str) -> ModuleType:
    """A module of this folder, whatever way the tests are imported."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


recordings = neighbour("recordings")


def make() -> None:
    """All runs in MADE_IN, and what is worth keeping of them in FIXTURES."""
    shutil.rmtree(MADE_IN, ignore_errors=True)
    recordings.draw(MADE_IN / "drawn")
    for name, words in COMMANDS.items():
        line = ["train", *words, *SHORT, *ALL, f"--out={name}"]
        print("vitral", shlex.join(line), flush=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "vitral", *line],
            cwd=MADE_IN,
            env=recordings.environment(MADE_IN),
            stdout=subprocess.DEVNULL,
        )
        log = MADE_IN / name / "metrics.jsonl"
        while name in STOPPED and process.poll() is None:
            if log.exists() and log.read_text(encoding="utf-8").count("\n") >= 16:
                process.send_signal(signal.SIGINT)
                break
            time.sleep(0.002)
        assert process.wait() == (130 if name in STOPPED else 0)
        shutil.rmtree(FIXTURES / name, ignore_errors=True)
        ignored = shutil.ignore_patterns(*USELESS, *unneeded(MADE_IN / name / "state"))
        shutil.copytree(MADE_IN / name, FIXTURES / name, ignore=ignored)
    shutil.rmtree(MADE_IN)


def unneeded(state: Path) -> list[str]:
    """The older slot of two."""
    slots = sorted(state.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return [path.name for path in slots[:-1]]


def copy(name: str, folder: Path) -> Path:
    """A run to work with; the drawn pictures lie where its recipe.json says."""
    run = folder / name
    shutil.copytree(FIXTURES / name, run)
    path = run / "recipe.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["recipe"]["data"]["source"].startswith(str(MADE_IN)):
        content["recipe"]["data"]["source"] = data(name, folder)
        del content["digest"]  # of what has just been edited; older runs have none
        path.write_text(json.dumps(content), encoding="utf-8")
    return run


def data(name: str, folder: Path) -> str:
    """What the run learns from."""
    if name != "multi-label":
        return COMMANDS[name][0]
    if not (folder / "drawn").exists():
        recordings.draw(folder / "drawn")
    return str(folder / "drawn" / "multi_label" / "labels.csv")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """As the runs were made, whatever the rest of the tests do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def vitral(folder: Path, *words: object) -> str:
    """What the command prints to stdout; it runs in this process and has to succeed."""
    told, complained = io.StringIO(), io.StringIO()
    environment = {"VITRAL_CACHE": str(folder / "cache"), "COLUMNS": "200"}
    with (
        mock.patch.object(sys, "argv", ["vitral", *map(str, words)]),
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stdout(told),
        contextlib.redirect_stderr(complained),
        one_thread(),
    ):
        try:
            runpy.run_module("vitral", run_name="__main__")
        except SystemExit as stop:
            if stop.code:
                raise AssertionError(f"vitral {words}: {complained.getvalue()}") from None
    return told.getvalue()


def answers(name: str, folder: Path) -> dict[str, Any]:
    """What best/ says of six drawn pictures, and how it is scored."""
    run, source = FIXTURES / name, data(name, folder)
    pictures = []
    for seed in range(100, 106):
        pictures.append(folder / f"{seed}.bmp")
        recordings.picture(seed).save(pictures[-1])
    told = json.loads(vitral(folder, "predict", run, *pictures, "--top=10", "--json"))["results"]
    for answer in told:
        del answer["path"]
    scores = json.loads(vitral(folder, "evaluate", run, source, "--json"))
    return {"predict": told, "evaluate": scores, "logits": logits(run)}


def logits(run: Path) -> list[list[float]]:
    """Of two made-up images, by `vitral.load`."""
    from vitral import load

    classifier = load(run, device="cpu")
    height, width = classifier.card.images.size
    pixels = torch.arange(2 * 3 * height * width).reshape(2, 3, height, width)
    with one_thread():
        found: list[list[float]] = classifier.logits((pixels * 37 % 101) / 50 - 1).tolist()
    return found


def finish(name: str, folder: Path) -> dict[str, Any]:
    """The numbers of the run after a copy of it has gone on to its end."""
    run = copy(name, folder)
    vitral(folder, "train", "--resume", run, "--device=cpu")
    return outcome(run)


def repeat(folder: Path) -> dict[str, Any]:
    """The numbers of a new run of an old recipe.json."""
    recipe = FIXTURES / "finished" / "recipe.json"
    out = folder / "again"
    vitral(folder, "train", "digits", "--recipe", recipe, "--out", out, "--device=cpu")
    return outcome(out)


def outcome(run: Path) -> dict[str, Any]:
    """As a recording has it."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "metrics": [recordings.exact(json.loads(line)) for line in lines],
        "best": recordings.digest(run / "best" / "model.safetensors"),
        "last": recordings.digest(run / "last" / "model.safetensors"),
    }


def names(network: str) -> dict[str, Any]:
    """Names and shapes of the tensors of a network: of all blocks alike, the first stands."""
    from vitral import create

    with torch.device("meta"):
        tensors = create(network, classes=10).state_dict()
    kept = {n: list(t.shape) for n, t in tensors.items() if not re.match(r"blocks\.[1-9]", n)}
    return {"count": len(tensors), "shapes": kept}


def record() -> None:
    """Write expected.json by the Vitral that is imported."""
    with tempfile.TemporaryDirectory(prefix="vitral-old-runs-") as made:
        folder = Path(made)
        content = {
            "machine": recordings.machine(),
            "answers": {name: answers(name, folder) for name in COMMANDS},
            "ends": {name: finish(name, folder) for name in COMMANDS},
            "again": repeat(folder),
            "networks": {name: names(name) for name in NETWORKS},
        }
    text = json.dumps(content, indent=1)
    text = re.sub(r"(\[[^\[\]{}]*\]|\{[^\[\]{}]*\})", lambda m: re.sub(r"\s+", " ", m[0]), text)
    (FIXTURES / "expected.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    print("by", recordings.which())
    {"make": make, "record": record}[sys.argv[1]]()
