"""Token merging: what it costs in accuracy and saves in time.

    .venv/bin/python benchmarks/merging.py [RUN] [--model B/16] [--batch 8] [--rounds 5]

Of RUN, a trained network: accuracy on its held-out images and images/s by schedule (what `--merge
auto` measures, to the end), and McNemar's test of the schedule that it takes. Of the model with
random weights: images/s by schedule in bfloat16 and in 8 bits beside timm's default, interleaved.
Writes benchmarks/results/merging.json.
"""

import argparse
import importlib
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vitral
from forward import TIMM
from inference import Call, rounds, saved, torch_call
from record import write
from vitral import merging
from vitral.engines import choose, openvino_engine
from vitral.engines.openvino_graph import to_openvino
from vitral.evaluation import compare
from vitral.export import int8
from vitral.images import augment
from vitral.specs.merging import merge_counts, tokens_per_block
from vitral.weights import artifact

SCHEDULES = ("8", "13", "13,-1", "39/3", "52/3")


def of_run(run: str) -> dict[str, Any]:
    """Accuracy and speed by schedule of a trained network, to the most that there is."""
    clf = vitral.load(run, announce=print)
    print(run, "computes by", clf.engine.name)
    choice = merging.choose(
        clf.model, clf.card, "benchmark", clf.engine, ("benchmark", "auto"), announce=print,
        to_the_end=True,
    )  # fmt: skip
    for row in choice.rows:
        print(f"  {row.merge:8} {row.speed:.2f}x  {100 * row.accuracy:.1f} %")
    found: dict[str, Any] = {"model": clf.card.model.name, "engine": clf.engine.name}
    recipe: Any = clf.card.made_by["recipe"]
    merged = vitral.load(run, merge=choice.merge)
    both = compare(*(each.evaluate(recipe["data"]["source"]) for each in (merged, clf)))
    return found | asdict(choice) | {"on_all_held_out": both.to_dict()}


def of_model(name: str, batch: int, count: int) -> dict[str, Any]:
    """Images a second of a model with random weights, by schedule, in bfloat16 and 8 bits."""
    augment.transforms()
    timm = importlib.import_module("timm")
    with tempfile.TemporaryDirectory() as temporary:
        network = artifact.load(saved(Path(temporary) / "ours", name))[0]
    spec = network.spec
    images = np.random.default_rng(0).standard_normal((batch, 3, *spec.size), np.float32)
    calls: dict[str, Call] = {"timm": torch_call(timm.create_model(TIMM[name]).eval())}
    library = int8.nncf()
    calibration = np.random.default_rng(1).standard_normal((16, *images.shape[1:]), np.float32)
    for schedule in ("off", *SCHEDULES):
        counts = merge_counts(schedule, spec)
        print(f"{schedule}: tokens by block {tokens_per_block(counts, spec)}")
        graph = to_openvino(network.merged(counts))
        precision = choose.openvino_precision("auto")
        calls[f"{precision} {schedule}"] = openvino_engine.opened(graph, precision).logits
        small = library.quantize(
            to_openvino(network.merged(counts)),
            library.Dataset([x[None] for x in calibration]),
            model_type=library.ModelType.TRANSFORMER,
            preset=library.QuantizationPreset.MIXED,
            subset_size=16,
        )
        engine = openvino_engine.opened(small, openvino_engine.runs_in("int8"))
        calls[f"int8 {schedule}"] = engine.logits
    return {
        "model": name,
        f"batch {batch}": rounds(calls, images, count),
        "batch 1": rounds(calls, images[:1], count),
    }


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", nargs="?")
    parser.add_argument("--model", default="B/16", choices=sorted(TIMM))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.manual_seed(0)
    figures: dict[str, Any] = {"run": of_run(asked.run)} if asked.run else {}
    figures["speed"] = of_model(asked.model, asked.batch, asked.rounds)
    print(write("merging", figures))


if __name__ == "__main__":
    main()
