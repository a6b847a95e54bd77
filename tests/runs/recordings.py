"""Twenty steps of eight runs, held to the bit: whatever moves in the code, learning must not.

    python tests/runs/recordings.py record      run all eight and write losses.json beside this file
    python tests/runs/recordings.py compare     run all eight and compare them with losses.json
    ... compare --only lora                     one of them
    ... --file PATH                             another recording, such as one made elsewhere

losses.json holds what commit f71e8d9 gave. The Vitral that is imported from here is the one that
runs (PYTHONPATH=OTHER/src for another); it is asked by its command line alone. Bits are demanded on
the machine that recorded: the same processor, instruction set and libraries. Elsewhere the losses
may differ by their last digits (TOLERANCE), so before changing code there, record the old state on
that machine and compare with it:

    PYTHONPATH=OLD/src python tests/runs/recordings.py record --file /tmp/losses.json
    PYTHONPATH=src python tests/runs/recordings.py compare --file /tmp/losses.json
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file

FILE = Path(__file__).with_name("losses.json")
# of metrics.jsonl: what learning decides; times and memory are the machine's
KEYS = ("step", "epoch", "loss", "lr", "accuracy", "val_loss", "val_accuracy", "val_score")
TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2}  # of a loss, on another machine
LIBRARIES = ("torch", "torchvision", "numpy", "pillow", "safetensors", "scikit-learn")
LABELS = ("disc", "red", "green", "blue")
BASE, MULTI_LABEL, CLASSES = "BASE", "MULTI_LABEL", "CLASSES"  # made beside the runs, see `prepare`

COMMON = [
    "--set=length=20 steps",
    "--set=schedule.warmup=4 steps",
    "--set=evaluate_every=8 steps",
    "--set=data.workers=0",
    "--device=cpu",
]
FP32 = "--set=precision=fp32"
BASE_RUN = ["digits", "--model=mu/8", "--size=24", "--batch=64", FP32]
RUNS: dict[str, list[str]] = {
    "digits": ["digits", "--recipe=digits", FP32],
    "shapes": [
        "shapes",
        "--recipe=shapes",
        "--size=32",
        "--set=data.count=400",
        "--set=augment.mixup=0.2",
        "--set=augment.cutmix=1.0",
        "--set=augment.randaugment=[2,9]",
        "--set=augment.erase=0.25",
        "--set=accumulate=2",
        "--set=ema=0.9",
        FP32,
    ],
    "finetune": [
        "shapes",
        "--recipe=finetune",
        f"--from={BASE}",
        "--size=32",
        "--set=data.count=200",
        "--batch=32",
        "--set=optimizer.layer_decay=0.75",
        "--set=noise.drop_path=0.2",
        "--set=noise.patch_dropout=0.25",
        "--set=precision=bf16",
    ],
    "distillation": [
        "digits",
        "--model=mu/8",
        "--size=24",
        "--batch=64",
        "--set=model.distillation_token=true",
        f"--set=objective.teacher={BASE}",
        "--set=objective.distill=soft",
        "--set=objective.temperature=3.0",
        "--set=augment.flip=0",
        "--set=augment.mixup=0.2",
        "--set=checkpointing=true",
        "--set=noise.dropout=0.1",
        FP32,
    ],
    "multi-label": [
        MULTI_LABEL,
        "--model=mu/8",
        "--size=32",
        "--batch=16",
        "--set=objective.loss=bce",
        "--set=optimizer.kind=lamb",
        "--set=noise.drop_path=0.2",
        "--set=accumulate=2",
        FP32,
    ],
    "lora": [
        "digits",
        "--recipe=lora",
        f"--from={BASE}",
        "--tune=lora:4",
        "--batch=64",
        "--set=augment.trivial=true",
        FP32,
    ],
    "two-processes": [
        CLASSES,
        "--model=mu/8",
        "--size=32",
        "--batch=12",
        "--set=augment.mixup=0.2",
        "--set=noise.drop_path=0.2",
        "--set=noise.patch_dropout=0.25",
        "--set=objective.class_weights=balanced",
        "--devices=2",
        FP32,
    ],
    "two-processes-sharded": [
        CLASSES,
        "--model=mu/8",
        "--size=32",
        "--batch=12",
        "--set=optimizer.clip=0.1",
        "--set=noise.drop_path=0.2",
        "--set=accumulate=2",
        "--devices=2",
        "--shard",
        FP32,
    ],
}


def picture(seed: int, size: int = 40) -> Image.Image:
    """Noise around one of eight colours, with a disc where the seed is odd: whole numbers alone."""
    dice = np.random.Generator(np.random.PCG64(seed))
    pixels = dice.integers(0, 60, (size, size, 3), dtype=np.int64)
    pixels += 130 * np.array([seed >> 1 & 1, seed >> 2 & 1, seed >> 3 & 1])
    if seed & 1:
        row, column = np.mgrid[:size, :size]
        middle = dice.integers(size // 3, 2 * size // 3, 2)
        inside = (row - middle[0]) ** 2 + (column - middle[1]) ** 2 < (size // 4) ** 2
        pixels[inside] = 255 - pixels[inside]
    return Image.fromarray(pixels.astype(np.uint8))


def draw(folder: Path) -> None:
    """Bitmaps, whose sizes in bytes are of no library's making, in class folders and with a CSV."""
    rows = ["path,labels"]
    for seed in range(64):
        path = folder / "classes" / f"kind-{seed >> 2 & 1}-{seed & 1}" / f"{seed:03}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(path)
        labels = [label for bit, label in enumerate(LABELS) if seed >> bit & 1]
        (folder / "multi_label").mkdir(exist_ok=True)
        picture(seed).save(folder / "multi_label" / path.name)
        rows.append(f"{path.name},{'|'.join(labels)}")
    (folder / "multi_label" / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def environment(folder: Path) -> dict[str, str]:
    """One thread per process, no GPU, and a cache of their own for the commands."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MKL_", "VITRAL_"))}
    return kept | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "VITRAL_CACHE": str(folder / "cache"),
    }


def train(folder: Path, name: str, words: list[str]) -> dict[str, Any]:
    """The numbers of one run, made in `folder`/`name`."""
    places = {
        BASE: str(folder / "base"),
        MULTI_LABEL: str(folder / "multi_label" / "labels.csv"),
        CLASSES: str(folder / "classes"),
    }
    for mark, place in places.items():
        words = [word.replace(mark, place) for word in words]
    out = folder / name
    done = subprocess.run(
        [sys.executable, "-m", "vitral", "train", *words, *COMMON, f"--out={out}"],
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "metrics": [exact(json.loads(line)) for line in lines],
        "best": digest(out / "best" / "model.safetensors"),
        "last": digest(out / "last" / "model.safetensors"),
    }


def exact(line: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a line of metrics.jsonl, those with a point as hexadecimal text."""
    found = {key: line[key] for key in KEYS if key in line}
    return {k: v.hex() if isinstance(v, float) else v for k, v in found.items()}


def digest(path: Path) -> str:
    """Of all names, shapes and values of a file of weights, in the order of the names."""
    found = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(load_file(path).items()):
        found.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        found.update(np.ascontiguousarray(tensor).tobytes())
    return found.hexdigest()


def prepare(folder: Path) -> dict[str, Any]:
    """Draw the pictures and train the weights that the runs begin with or learn from."""
    if not (folder / "multi_label").exists():
        draw(folder)
    return train(folder, "base", BASE_RUN)


def machine() -> dict[str, str]:
    """What decides the last bit of a product."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""

    def entry(key: str) -> str:
        found = re.search(rf"^{key}\s*: (.*)$", text, re.MULTILINE)
        return found[1] if found else ""

    flags = [flag for flag in entry("flags").split() if re.match("avx|amx|fma|sse", flag)]
    names = ("model name", "cpu family", "model", "stepping")
    return {
        "processor": " / ".join(filter(None, map(entry, names))) or platform.processor(),
        "flags": " ".join(sorted(flags)),
        "system": f"{platform.system()} {platform.machine()}",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": "1",
        **{name: metadata.version(name) for name in LIBRARIES},
    }


def difference(name: str, old: dict[str, Any], new: dict[str, Any], bits: bool) -> str | None:
    """The first number that is not as it was recorded, in words; None where all are."""
    words = RUNS.get(name, BASE_RUN)
    tolerance = TOLERANCE["fp32" if FP32 in words else "bf16"]
    if len(old["metrics"]) != len(new["metrics"]):
        return f"{len(old['metrics'])} lines were recorded, now {len(new['metrics'])}"
    for before, after in zip(old["metrics"], new["metrics"], strict=True):
        where = f"step {before['step']}"
        if before.keys() != after.keys():
            return f"{where} has {', '.join(after)}, recorded {', '.join(before)}"
        for key in before:
            if before[key] == after[key] or not (bits or "loss" in key):
                continue
            a, b = (float.fromhex(str(line[key])) for line in (before, after))
            if bits or not abs(a - b) <= tolerance * abs(a):
                return f"{where}: {key} {b!r}, recorded {a!r} ({(b - a) / (abs(a) or 1):+.1e})"
    if bits:
        for part in ("best", "last"):
            if old[part] != new[part]:
                return f"every loss is equal, the weights in {part}/ are not"
    return None


def check(name: str, folder: Path, file: Path = FILE) -> str | None:
    """Run one in `folder`, where `prepare` has been; the first difference, or None."""
    recorded = json.loads(file.read_text(encoding="utf-8"))
    new = train(folder, name, RUNS[name])
    return difference(name, recorded["runs"][name], new, recorded["machine"] == machine())


def which() -> str:
    """Where the Vitral lies that the commands run."""
    code = "import vitral; print(vitral.__file__)"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return str(Path(done.stdout.strip()).parent)


def record(folder: Path, names: list[str], file: Path) -> int:
    """Write what the runs give, beside what the file holds of others."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    runs = found.get("runs", {}) if found.get("machine") == machine() else {}
    runs["base"] = prepare(folder)
    for name in names:
        runs[name] = train(folder, name, RUNS[name])
        print(f"{name:22} recorded", flush=True)
    content = {"machine": machine(), "runs": {k: runs[k] for k in ("base", *RUNS) if k in runs}}
    text = re.sub(r"\{\s+(\"step\".*?)\s+\}", one_line, json.dumps(content, indent=1), flags=re.S)
    file.write_text(text + "\n", encoding="utf-8")
    return 0


def one_line(match: re.Match[str]) -> str:
    """A step of the recording on a line of its own."""
    return "{" + re.sub(r"\s+", " ", match[1]) + "}"


def compare(folder: Path, names: list[str], file: Path) -> int:
    """A line per run; 1 when one of them differs."""
    recorded = json.loads(file.read_text(encoding="utf-8"))
    here = machine()
    other = [key for key in here if here[key] != recorded["machine"].get(key)]
    print(f"another machine ({', '.join(other)}): losses alone" if other else "to the bit")
    wrong = 0
    base = difference("base", recorded["runs"]["base"], prepare(folder), not other)
    for name in ("base", *names):
        found = base if name == "base" else check(name, folder, file)
        print(f"{name:22} {found or 'equal'}", flush=True)
        wrong += found is not None
    return int(wrong > 0)


def main() -> int:
    """Record or compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("verb", choices=["record", "compare"])
    parser.add_argument("--only", choices=list(RUNS), action="append", help="this run alone")
    parser.add_argument("--file", type=Path, default=FILE, help="the recording")
    asked = parser.parse_args()
    print(f"vitral in {which()}", flush=True)
    verb = record if asked.verb == "record" else compare
    with tempfile.TemporaryDirectory(prefix="vitral-recordings-") as folder:
        return verb(Path(folder), asked.only or list(RUNS), asked.file)


if __name__ == "__main__":
    sys.exit(main())
