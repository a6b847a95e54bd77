"""Inference on a CPU: Vitral through its public path beside others at their defaults and best.

    .venv/bin/python benchmarks/inference.py [--model B/16] [--batch 8] [--rounds 7] [--compile]
        [--name inference]

One process, tensors ready, one call each in turn and in another order every round; weights are
random and the same in timm, ONNX Runtime, OpenVINO and Vitral (Vitral's, converted). A ratio is
timm's default time over theirs in the same round: its median and quartiles. `equal labels` counts
noise pictures with the answer of float32, where the head is drawn at random, which is harder than
a trained one. `--compile` adds timm by torch's compiler with frozen weights, minutes of it. Also
processes that answer for one JPEG. Writes benchmarks/results/NAME.json.
"""

import argparse
import importlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from PIL import Image

import vitral
from forward import TIMM, peer
from record import write
from vitral.catalog import model as catalog_model
from vitral.engines.measure import matrix_rate
from vitral.engines.openvino_graph import to_openvino
from vitral.engines.openvino_runtime import runtime
from vitral.export import int8, run
from vitral.export import write as export_files
from vitral.images import augment
from vitral.model import build
from vitral.specs import ImageSpec, counts
from vitral.weights import artifact
from vitral.weights.card import Card
from vitral.weights.convert import convert

Call = Callable[[np.ndarray], np.ndarray]


def torch_call(network: torch.nn.Module, dtype: torch.dtype | None = None) -> Call:
    """Logits of a torch module, in its own dtype."""

    def call(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(images)
            out = network(x if dtype is None else x.to(dtype))
            return getattr(out, "logits", out).float().numpy()

    return call


def compiled(network: torch.nn.Module, images: np.ndarray) -> Call:
    """By torch's compiler with frozen weights, in bfloat16."""
    config: Any = importlib.import_module("torch._inductor.config")
    config.freezing = True
    fast: Any = torch.compile(network.to(torch.bfloat16))
    call = torch_call(fast, torch.bfloat16)
    call(images)
    return call


def raw_call(network: Any) -> Call:
    """Logits of a compiled openvino network."""
    return lambda images: np.array(network([images])[0])


def public_call(classifier: vitral.Classifier) -> Call:
    """Logits through the public path."""
    return lambda images: classifier.logits(torch.from_numpy(images)).numpy()


def saved(folder: Path, name: str) -> Path:
    """An artifact of a model with random weights, its head too."""
    torch.manual_seed(0)
    spec = catalog_model(name, classes=1000)
    network = build(spec)
    with torch.no_grad():
        assert isinstance(network.head, torch.nn.Linear)
        network.head.weight.normal_(std=0.1)
    card = Card(model=spec, images=ImageSpec(size=spec.size), classes=tuple(map(str, range(1000))))
    artifact.save(folder, network.state_dict(), card)
    return folder


def calls(name: str, folder: Path, images: np.ndarray, *, compile_: bool) -> dict[str, Call]:
    """Everything that computes, by name."""
    augment.transforms()  # makes torchvision importable where its wheel is of another torch
    timm = importlib.import_module("timm")
    ours = artifact.load(folder)[0]
    convert(folder, folder.parent / "timm", to="timm", announce=print)
    weights = next((folder.parent / "timm").glob("*.safetensors"))

    def of_timm() -> torch.nn.Module:
        return timm.create_model(TIMM[name], checkpoint_path=str(weights)).eval()

    spec = ours.spec
    found = {"timm": torch_call(of_timm())}
    found["timm bf16"] = torch_call(of_timm().to(torch.bfloat16), torch.bfloat16)
    for library in ("transformers", "torchvision", "vit_pytorch"):
        found[library] = torch_call(peer(library, name, spec).eval())
        half = peer(library, name, spec).eval().to(torch.bfloat16)
        found[f"{library} bf16"] = torch_call(half, torch.bfloat16)
    if compile_:
        found["timm bf16 compiled"] = compiled(of_timm(), images)
    card = artifact.load_card(folder)
    export_files.onnx(ours, card, folder.parent / "model.onnx")
    found["onnxruntime"] = run.onnx(folder.parent / "model.onnx")
    openvino = runtime()
    assert openvino is not None
    for hint in ("f32", "bf16"):
        raw = openvino.Core().compile_model(
            to_openvino(ours), "CPU", {"INFERENCE_PRECISION_HINT": hint}
        )
        found[f"openvino {hint}"] = raw_call(raw)
    library = int8.nncf()
    calibration = np.random.default_rng(1).standard_normal((32, *images.shape[1:]), np.float32)
    small = library.quantize(
        to_openvino(ours),
        library.Dataset([x[None] for x in calibration]),
        model_type=library.ModelType.TRANSFORMER,
        preset=library.QuantizationPreset.MIXED,
        subset_size=32,
    )
    out = folder.parent / "int8"
    out.mkdir()
    export_files.openvino(small, card, out, "int8")
    raw8 = openvino.Core().compile_model(
        str(out / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "bf16"}
    )
    found["openvino int8"] = raw_call(raw8)
    for title, options in (("vitral", {}), ("vitral torch", {"engine": "torch"})):
        clf = vitral.load(folder, announce=print, **options)
        print(title, "computes by", clf.engine.name)
        found[title] = public_call(clf)
    found["vitral int8"] = public_call(vitral.load(out))
    return found


def rounds(found: dict[str, Call], images: np.ndarray, count: int) -> dict[str, dict[str, Any]]:
    """Seconds of each, and how many times as fast as timm's default, by interleaved rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in found}
    order = list(found)
    for number in range(count + 1):
        random.Random(number).shuffle(order)
        for name in order:
            start = time.perf_counter()
            found[name](images)
            if number:
                seconds[name].append(time.perf_counter() - start)
    rows = {}
    for name, taken in seconds.items():
        ratios = [a / b for a, b in zip(seconds["timm"], taken, strict=True)]
        quarters = quantiles(ratios, n=4)
        rows[name] = {
            "images_per_second": round(len(images) / median(taken), 2),
            "times_timm": round(median(ratios), 3),
            "quartiles": [round(quarters[0], 3), round(quarters[2], 3)],
        }
        print(f"  {name:22} {rows[name]}", flush=True)
    return rows


def processes(folder: Path, out: Path, photo: Path, count: int) -> dict[str, dict[str, float]]:
    """Whole processes that answer for one JPEG: seconds and peak megabytes, medians."""
    size = artifact.load_card(folder).images.size[0]
    timm_way = (
        "import sys\nfrom vitral.images import augment\naugment.transforms()\n"
        "import timm, torch\nfrom PIL import Image\n"
        f"m = timm.create_model('{TIMM['B/16']}').eval()\n"
        "t = timm.data.create_transform(**timm.data.resolve_model_data_config(m))\n"
        "print(m(t(Image.open(sys.argv[1]).convert('RGB'))[None]).argmax().item())"
    )
    commands = {
        "vitral predict": [sys.executable, "-m", "vitral", "predict", folder, photo],
        "vitral predict int8": [sys.executable, "-m", "vitral", "predict", out, photo],
        "timm": [sys.executable, "-c", timm_way, photo],
    }
    print(f"one JPEG of {size} px, whole processes")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(count):
        for name, command in commands.items():
            start = time.perf_counter()
            code = (
                "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True,"
                "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL);"
                "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
            )
            done = subprocess.run(
                [sys.executable, "-S", "-c", code, *map(str, command)],
                capture_output=True,
                text=True,
                check=True,
            )
            found[name].append((time.perf_counter() - start, int(done.stdout) / 1024))
    rows = {
        name: {
            "seconds": round(median(each[0] for each in taken), 2),
            "megabytes": round(median(each[1] for each in taken)),
        }
        for name, taken in found.items()
    }
    print(rows, flush=True)
    return rows


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="B/16", choices=sorted(TIMM))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--name", default="inference")
    asked = parser.parse_args()
    spec = catalog_model(asked.model)
    shape = (asked.batch, spec.channels, *spec.size)
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    with tempfile.TemporaryDirectory() as temporary:
        folder = saved(Path(temporary) / "ours", asked.model)
        found = calls(asked.model, folder, images, compile_=asked.compile)
        print(f"{asked.model}, batch {asked.batch}")
        rows = rounds(found, images, asked.rounds)
        print("batch 1")
        single = rounds(found, images[:1], asked.rounds)
        many = np.random.default_rng(2).standard_normal((64, *shape[1:]), np.float32)
        exact = np.concatenate([found["timm"](many[i : i + 8]) for i in range(0, 64, 8)])
        equal = {}
        for name in ("vitral", "vitral int8"):
            logits = np.concatenate([found[name](many[i : i + 8]) for i in range(0, 64, 8)])
            equal[name] = float((logits.argmax(1) == exact.argmax(1)).mean())
        rates = {"fp32": matrix_rate("fp32"), "bf16": matrix_rate("bf16")}
        photo = Path(temporary) / "photo.jpg"
        noise = np.random.default_rng(3).integers(0, 255, (375, 500, 3), np.uint8)
        Image.fromarray(noise).save(photo)
        whole = processes(folder, folder.parent / "int8", photo, 3)
    figures = {
        "model": asked.model,
        "gflops": counts.flops(spec) / 1e9,
        "matrix_rates": rates,
        f"batch {asked.batch}": rows,
        "batch 1": single,
        "equal_labels_on_noise": equal,
        "processes": whole,
    }
    print(write(asked.name, figures))


if __name__ == "__main__":
    main()
