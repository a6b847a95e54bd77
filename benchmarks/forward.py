"""Forward, and forward with backward, beside timm, transformers, torchvision and vit-pytorch.

    OMP_NUM_THREADS=2 .venv/bin/python benchmarks/forward.py [--models Ti/16 S/16 B/16]
        [--dtypes float32 bfloat16] [--batch N] [--rounds 15] [--threads 2] [--compile]
        [--name forward]

Every library runs the same architecture at the same size, dtype and number of threads in one
process, one call each in turn and in another order every round, so that a busy machine slows all
of them alike. vit-pytorch has no qkv bias, so it is compared with Vitral's network without one
(it has two norms more around the patch embedding). A ratio is Vitral's time over theirs in the
same round: its median and quartiles. Writes benchmarks/results/NAME.json.
"""

import argparse
import importlib
import importlib.util
import random
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn

from record import write
from vitral.catalog import model
from vitral.images import augment
from vitral.model import build
from vitral.specs import ModelSpec

BATCH = {"Ti/16": 8, "S/16": 4, "B/16": 2, "L/16": 1}
PEERS = ("timm", "transformers", "torchvision", "vit_pytorch")
OURS = {"vit_pytorch": "vitral_no_qkv_bias"}  # whom a library is compared with, if not "vitral"
TIMM = {"Ti/16": "vit_tiny_patch16_224", "S/16": "vit_small_patch16_224"}
TIMM |= {"B/16": "vit_base_patch16_224", "L/16": "vit_large_patch16_224"}


def peer(library: str, name: str, spec: ModelSpec) -> nn.Module:
    """The same architecture as its own library builds it, with that library's defaults."""
    module = importlib.import_module(library)
    match library:
        case "timm":
            return module.create_model(TIMM[name], img_size=spec.size[0], num_classes=spec.classes)
        case "torchvision":
            return module.models.VisionTransformer(
                image_size=spec.size[0],
                patch_size=16,
                num_layers=spec.depth,
                num_heads=spec.heads,
                hidden_dim=spec.width,
                mlp_dim=spec.mlp_width,
                num_classes=spec.classes,
            )
        case "transformers":
            config = module.ViTConfig(
                image_size=spec.size[0],
                hidden_size=spec.width,
                num_hidden_layers=spec.depth,
                num_attention_heads=spec.heads,
                intermediate_size=spec.mlp_width,
                num_labels=spec.classes,
            )
            return module.ViTForImageClassification(config)
        case "vit_pytorch":
            return module.ViT(
                image_size=spec.size[0],
                patch_size=16,
                num_classes=spec.classes,
                dim=spec.width,
                depth=spec.depth,
                heads=spec.heads,
                mlp_dim=spec.mlp_width,
                dim_head=spec.width // spec.heads,
            )
        case _:
            raise ValueError(library)


def forward(network: nn.Module, images: Tensor) -> None:
    with torch.inference_mode():
        network(images)


def forward_backward(network: nn.Module, images: Tensor) -> None:
    answer = network(images)
    logits = answer if isinstance(answer, Tensor) else answer.logits
    logits.sum().backward()
    for value in network.parameters():
        value.grad = None


def seconds(call: Callable[[nn.Module, Tensor], None], network: nn.Module, images: Tensor) -> float:
    started = time.perf_counter()
    call(network, images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


def compare(
    networks: dict[str, nn.Module],
    images: Tensor,
    call: Callable[[nn.Module, Tensor], None],
    rounds: int,
) -> dict[str, Any]:
    """Seconds of each library, and Vitral's ratio to it, round by round."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    order = list(networks)
    for round_number in range(-2, rounds):  # two rounds to warm up
        random.Random(round_number).shuffle(order)
        for name in order:
            taken = seconds(call, networks[name], images)
            if round_number >= 0:
                times[name].append(taken)
    result: dict[str, Any] = {}
    for name, all_of_them in times.items():
        same = times[OURS.get(name, "vitral")]
        ratios = [ours / theirs for ours, theirs in zip(same, all_of_them, strict=True)]
        low, _, high = quantiles(ratios, n=4)
        result[name] = {
            "seconds": median(all_of_them),
            "fastest": min(all_of_them),
            "vitral_ratio": median(ratios),
            "quartiles": [low, high],
        }
    return result


def networks_of(
    name: str, arguments: argparse.Namespace, dtype: torch.dtype
) -> dict[str, nn.Module]:
    spec = replace(model(name), gelu="erf")  # as the peers compute it
    networks: dict[str, nn.Module] = {"vitral": build(spec)}
    networks["vitral_no_qkv_bias"] = build(replace(spec, biases="no_qkv"))
    for library in PEERS:
        if importlib.util.find_spec(library):
            networks[library] = peer(library, name, spec)
        else:
            print(f"{library} is not installed: not compared")
    for network in networks.values():
        network.to(arguments.device, dtype).eval()
        if arguments.compile:
            network.compile()
    return networks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["Ti/16", "S/16", "B/16"], choices=TIMM)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, help="default: 8, 4, 2 and 1 from Ti to L")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", default="forward", help="of the file under results/")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    augment.transforms()  # makes torchvision importable where its wheel was built for another torch
    rows = []
    for name in arguments.models:
        for dtype in arguments.dtypes:
            images = torch.randn(arguments.batch or BATCH[name], 3, 224, 224).to(
                arguments.device, getattr(torch, dtype)
            )
            networks = networks_of(name, arguments, images.dtype)
            for call in (forward, forward_backward):
                result = compare(networks, images, call, arguments.rounds)
                case = {"model": name, "dtype": dtype, "pass": call.__name__, "batch": len(images)}
                rows.append(case | result)
                shown = "  ".join(
                    f"{library} {1000 * row['seconds']:.0f} ms ratio {row['vitral_ratio']:.3f} "
                    f"[{row['quartiles'][0]:.3f}, {row['quartiles'][1]:.3f}]"
                    for library, row in result.items()
                )
                print(f"{name} {dtype} {call.__name__}: {shown}", flush=True)
    versions = {name: metadata.version(name) for name in PEERS if importlib.util.find_spec(name)}
    print(write(arguments.name, {"settings": vars(arguments), "peers": versions, "rows": rows}))


if __name__ == "__main__":
    main()
