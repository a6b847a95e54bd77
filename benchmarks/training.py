"""Training steps of Vitral beside timm, transformers, torchvision and vit-pytorch.

    .venv/bin/python benchmarks/training.py [--model S/16] [--batch 8] [--rounds 9] [--quick]
        [--compile] [--device cpu] [--size 224] [--name training]

Whole steps, forward to AdamW, with ready images: Vitral's by the `step` of its own loop, which also
normalises the pixels and reads loss and accuracy. Each library in float32 and under bfloat16's
autocast, timm and transformers with attention by torch's fused kernel and written out, and with
--compile all of it by torch's compiler too; a best setting is the one whose median is smallest.
One call each in turn, in another order every round; a ratio is Vitral's best over theirs in the
same round, with its median and quartiles: below 1 Vitral is faster. vit-pytorch has no bias of q, k
and v, and is compared with Vitral's network without one. Sixteen networks with their optimizers
are in memory at once, of S/16 6 GB. Writes benchmarks/results/NAME.json.
"""

import argparse
import importlib.util
import random
import time
from dataclasses import replace
from importlib import import_module, metadata
from statistics import median, quantiles
from typing import Any

import torch
from torch import nn

from forward import OURS, PEERS, TIMM, peer
from record import write
from steps import Step, our_step, step_of
from vitral.catalog import model
from vitral.engines.measure import matrix_rate
from vitral.images import augment
from vitral.specs import ModelSpec, counts


def steps_of(
    name: str, spec: ModelSpec, arguments: argparse.Namespace
) -> dict[tuple[str, str], Step]:
    """The step of each (library, setting)."""
    device = torch.device(arguments.device)
    found: dict[tuple[str, str], Step] = {}
    ours = {"vitral": spec}
    if "vit_pytorch" in arguments.peers:
        ours["vitral_no_qkv_bias"] = replace(spec, biases="no_qkv")
    for compiles in (False, True) if arguments.compile else (False,):
        for precision in arguments.precisions:
            setting = precision + " compiled" * compiles
            for title, own in ours.items():
                found[title, setting] = our_step(
                    own, arguments.batch, precision=precision, device=device, compiles=compiles
                )
            for library in arguments.peers:
                for suffix, network in networks_of(library, name, spec).items():
                    if compiles:
                        network.compile()
                    found[library, setting + suffix] = step_of(
                        network, spec, arguments.batch, precision=precision, device=device
                    )
    return found


def networks_of(library: str, name: str, spec: ModelSpec) -> dict[str, nn.Module]:
    """A library's network as it comes, and with attention written out where it lets one choose."""
    found = {"": peer(library, name, spec)}
    match library:
        case "timm":
            layers = import_module("timm.layers")
            layers.set_fused_attn(False)
            found[" written out"] = peer(library, name, spec)
            layers.set_fused_attn(True)
        case "transformers":
            eager: Any = peer(library, name, spec)
            eager.set_attn_implementation("eager")
            found[" written out"] = eager
    return found


def timed(found: dict[tuple[str, str], Step], rounds: int) -> dict[tuple[str, str], list[float]]:
    """Seconds of each, round by round, after one round of warm-up."""
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in found}
    order = list(found)
    for number in range(-1, rounds):
        random.Random(number).shuffle(order)
        for key in order:
            started = time.perf_counter()
            found[key]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number >= 0:
                seconds[key].append(time.perf_counter() - started)
    return seconds


def rows_of(seconds: dict[tuple[str, str], list[float]], batch: int) -> dict[str, Any]:
    """For each library its settings, the best of them, and Vitral's ratio to that."""
    settings: dict[str, dict[str, float]] = {}
    for (library, setting), taken in seconds.items():
        settings.setdefault(library, {})[setting] = median(taken)
    best = {library: min(row, key=lambda each: row[each]) for library, row in settings.items()}
    rows = {}
    for library, row in settings.items():
        own = OURS.get(library, "vitral")
        theirs = seconds[library, best[library]]
        ratios = [a / b for a, b in zip(seconds[own, best[own]], theirs, strict=True)]
        low, _, high = quantiles(ratios, n=4)
        rows[library] = {
            "seconds": row,
            "best": best[library],
            "images_per_second": batch / row[best[library]],
            "vitral_ratio": median(ratios),
            "quartiles": [low, high],
        }
    return rows


def main() -> None:
    """Measure, print and keep the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="S/16", choices=sorted(TIMM))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--quick", action="store_true", help="5 rounds: minutes on two cores")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS)
    parser.add_argument("--name", default="training", help="of the file under results/")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds = 5
    torch.set_num_threads(arguments.threads)
    augment.transforms()  # makes torchvision importable where its wheel was built for another torch
    arguments.peers = [name for name in arguments.peers if importlib.util.find_spec(name)]
    spec = replace(model(arguments.model, size=arguments.size), gelu="erf")  # as the peers
    found = steps_of(arguments.model, spec, arguments)
    rows = rows_of(timed(found, arguments.rounds), arguments.batch)
    rates: dict[str, float] = {}
    if arguments.device == "cpu":
        rates = {precision: matrix_rate(precision) for precision in arguments.precisions}
    for library, row in rows.items():
        rate = 3 * counts.flops(spec) * row["images_per_second"]
        row["tflops"] = rate / 1e12
        if rates:
            row["share_of_matrix_rate"] = rate / rates[row["best"].split()[0]]
        settings = "  ".join(
            f"{key} {1000 * taken:.0f} ms" for key, taken in row["seconds"].items()
        )
        low, high = row["quartiles"]
        print(
            f"{library:20} {settings}; best {row['best']}, Vitral takes {row['vitral_ratio']:.3f} "
            f"[{low:.3f}, {high:.3f}] of it",
            flush=True,
        )
    versions = {name: metadata.version(name) for name in arguments.peers}
    kept = {"settings": vars(arguments), "peers": versions, "matrix_rates": rates, "rows": rows}
    print(write(arguments.name, kept))


if __name__ == "__main__":
    main()
