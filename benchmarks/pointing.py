"""Do explanations point at the object? On `shapes`, whose masks are known, beside other recipes.

    .venv/bin/python benchmarks/pointing.py RUN [--scenes 600] [--seed 1] [--sizes 64 96]
        [--steps 20] [--goal 90] [--name pointing]

RUN is what `vitral train shapes` made. Fresh scenes of another seed, at the size of training and
at one that the network never saw; only those that it answers rightly are explained. Per method:
pointing game (the maximum of the map, upsampled bilinearly to the picture, lies on the object;
Wilson's interval), whether the most relevant patch covers any of the object (thin shapes and holes
are narrower than a patch), mass (share of the map on the object), and, of the probability of the
class, what deletion and insertion gain over random order (vitral.explanation.faithfulness).

Beside ours: chance, i.e. the share of the picture that the object covers, and the point in the
middle of the picture; what timm and transformers users are told to do, the raw attention of the
output token in the last block, heads averaged (of a mean-pooled model: of all patches); rollout;
pytorch-grad-cam's GradCAM at the norm1 of the last block, from the package if it is installed, and
otherwise the same formula written here. Writes benchmarks/results/NAME.json. Ends with status 1
when the default points worse than another method or below the goal (in per cent).
"""

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vitral
from record import write
from vitral.data.shapes import KINDS, draw
from vitral.evaluation import wilson
from vitral.explanation import explain
from vitral.explanation.attention import readout, rollout, to_patches
from vitral.explanation.faithfulness import faithfulness
from vitral.explanation.request import ExplainRequest, Method
from vitral.images import preprocess
from vitral.model import ViT
from vitral.specs import ImageSpec

METHODS = (
    "occlusion (default)",
    "integrated gradients (--fast)",
    "gradient x input",
    "LeGrad",
    "relevance",
    "rollout",
    "rollout without residual",
    "raw attention, last block",
    "GradCAM, last norm1",
)
BATCH = 50
INSTALLED = importlib.util.find_spec("pytorch_grad_cam") is not None


def maps(method: str, model: ViT, images: Tensor, targets: Tensor, spec: ImageSpec) -> Tensor:
    """(B, rows, columns), or (B, H, W) from the package: at least 0."""
    match method:
        case "occlusion (default)" | "relevance" | "integrated gradients (--fast)":
            named: dict[str, Method] = {"relevance": "relevance"}
            chosen = named.get(method) or ("gradient" if method.startswith("int") else None)
            request = ExplainRequest(method=chosen, steps=0, details=False)
            explanations = explain(model, images, spec, KINDS, request)
            return torch.stack([torch.as_tensor(each.heatmap) for each in explanations])
        case "rollout" | "rollout without residual" | "raw attention, last block":
            with torch.no_grad():
                _, weights = model.forward_with_attention(images)
            blocks, grid = weights[: model.spec.depth], model.spec.grid
            raw = method.startswith("raw")
            rows = blocks[-1].mean(1) if raw else rollout(blocks, method == "rollout")
            read = readout(model.spec, grid, weights, None)
            return to_patches(rows, read, grid, model.spec.prefix)
        case "gradient x input":
            return gradient_times_input(model, images, targets)
        case "LeGrad":
            return legrad(model, images, targets)
        case "GradCAM, last norm1" if INSTALLED:
            return packaged(model, images, targets)
        case "GradCAM, last norm1":
            return grad_cam(model, images, targets)
    raise ValueError(method)


def gradient_times_input(model: ViT, images: Tensor, targets: Tensor) -> Tensor:
    """The positive part of the gradient times the image less its mean colour, by patches."""
    asked = images.clone().requires_grad_(True)
    chosen = model(asked).gather(1, targets[:, None]).sum()
    (slope,) = torch.autograd.grad(chosen, [asked])
    amounts = (slope * (images - images.mean(dim=(2, 3), keepdim=True))).sum(1, keepdim=True)
    return F.adaptive_avg_pool2d(amounts, model.spec.grid)[:, 0].clamp(min=0)


def legrad(model: ViT, images: Tensor, targets: Tensor) -> Tensor:
    """LeGrad (Bousselham et al. 2024): relu of each layer's gradient along its attention.

    The score of each layer is the class read from its tokens by the head; averaged over heads,
    queries and layers.
    """
    embedded = model.embed(images, any_size=True)
    x = embedded.tokens.detach()
    total = torch.zeros(x.shape[:2])
    after: list[Tensor] = []
    for block in model.blocks:
        kept: list[Tensor] = []
        with torch.enable_grad():
            y = block(x.requires_grad_(True), embedded.context, kept)
            logits = model.logits_from_tokens(*after, y)
            chosen = logits.gather(1, targets[:, None]).sum()
        (slope,) = torch.autograd.grad(chosen, [kept[0]])
        total += slope.clamp(min=0).mean(dim=(1, 2))
        x = y.detach()
        after.append(x)
    return as_map(model, total)


def as_map(model: ViT, amounts: Tensor) -> Tensor:
    """(B, T) to (B, rows, columns)."""
    return amounts[:, model.spec.prefix :].unflatten(1, model.spec.grid)


def as_channels(model: ViT, tokens: Tensor) -> Tensor:
    """The usual reshape transform: (B, T, D) to (B, D, rows, columns), prefix left out."""
    return tokens[:, model.spec.prefix :].unflatten(1, model.spec.grid).permute(0, 3, 1, 2)


def last_norm(model: ViT) -> nn.Module:
    """What the package's example for ViTs takes as the layer."""
    return model.get_submodule(f"blocks.{model.spec.depth - 1}.norm1")


def grad_cam(model: ViT, images: Tensor, targets: Tensor) -> Tensor:
    """relu of the channels weighed by their mean gradients (Selvaraju et al. 2017)."""
    kept: list[Tensor] = []
    hook = last_norm(model).register_forward_hook(lambda *call: kept.append(call[2]))
    chosen = model(images).gather(1, targets[:, None]).sum()
    hook.remove()
    slopes = as_channels(model, torch.autograd.grad(chosen, kept[0])[0])
    weighed = slopes.mean(dim=(2, 3), keepdim=True) * as_channels(model, kept[0])
    return weighed.sum(dim=1).clamp(min=0).detach()


def packaged(model: ViT, images: Tensor, targets: Tensor) -> Tensor:
    from pytorch_grad_cam import GradCAM  # noqa: PLC0415  no dependency of ours
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget  # noqa: PLC0415

    layers = [last_norm(model)]
    with GradCAM(model, layers, reshape_transform=lambda x: as_channels(model, x)) as cam:
        chosen = [ClassifierOutputTarget(target) for target in targets.tolist()]
        return torch.from_numpy(cam(input_tensor=images, targets=chosen))


def scenes(seed: int, count: int, spec: ImageSpec) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of ready images, labels and masks."""
    for first in range(0, count, BATCH):
        drawn = [draw(seed, index, spec.size) for index in range(first, min(first + BATCH, count))]
        images = torch.stack([preprocess.tensor(scene.image, spec) for scene in drawn])
        masks = torch.stack([torch.from_numpy(scene.mask) for scene in drawn])
        yield images, torch.tensor([scene.label for scene in drawn]), masks


def on_object(found: Tensor, masks: Tensor) -> tuple[list[bool], list[float]]:
    """Of each map: whether its maximum is on the object, and the share of it that is."""
    large = F.interpolate(
        found[:, None].double(), masks.shape[1:], mode="bilinear", align_corners=False
    ).flatten(1)
    flat = masks.flatten(1)
    hits = flat.gather(1, large.argmax(dim=1, keepdim=True))[:, 0]
    total = large.sum(dim=1)  # a map of zeros alone says nothing: no mass, and its corner as point
    mass = torch.where(total > 0, (large * flat).sum(dim=1) / total.clamp_min(1e-300), 0)
    return hits.tolist(), mass.tolist()


def measure(model: ViT, spec: ImageSpec, arguments: argparse.Namespace) -> dict[str, Any]:
    """Every method on the same scenes of one size."""
    hits: dict[str, list[bool]] = {name: [] for name in (*METHODS, "middle of the picture")}
    touches: dict[str, list[bool]] = {name: [] for name in METHODS}
    mass: dict[str, list[float]] = {name: [] for name in METHODS}
    gains: dict[str, list[tuple[float, float]]] = {name: [] for name in METHODS}
    areas: list[float] = []
    request = ExplainRequest(steps=arguments.steps)
    for images, labels, masks in scenes(arguments.seed, arguments.scenes, spec):
        with torch.no_grad():
            right = model(images).argmax(dim=1) == labels
        chosen, targets, there = images[right], labels[right], masks[right]
        if not len(chosen):
            continue
        areas += there.double().mean(dim=(1, 2)).tolist()
        hits["middle of the picture"] += there[:, spec.size[0] // 2, spec.size[1] // 2].tolist()
        for name in METHODS:
            found = maps(name, model, chosen, targets, spec)
            pointed, shares = on_object(found, there)
            hits[name] += pointed
            mass[name] += shares
            grid = F.adaptive_avg_pool2d(found[:, None].float(), model.spec.grid)[:, 0]
            covered = F.adaptive_max_pool2d(there[:, None].float(), model.spec.grid).flatten(1)
            most = grid.flatten(1).argmax(dim=1, keepdim=True)
            touches[name] += (covered.gather(1, most)[:, 0] > 0).tolist()
            if arguments.steps:
                scored = faithfulness(model, chosen, grid, targets, request)
                gains[name] += [(one.deletion_score, one.insertion_score) for one in scored]
    rows = {name: pointing(hits[name]) for name in hits}
    for name in METHODS:
        rows[name]["patch_touches_object"] = float(np.mean(touches[name]))
        rows[name]["mass_on_object"] = mean(mass[name])
        if arguments.steps:
            rows[name]["deletion_gain"] = mean([deleted for deleted, _ in gains[name]])
            rows[name]["insertion_gain"] = mean([inserted for _, inserted in gains[name]])
    ours = rows[METHODS[0]]["pointing"]
    best = all(ours >= row["pointing"] for row in rows.values())
    return {
        "size": list(spec.size),
        "grid": list(model.spec.grid),
        "scenes": arguments.scenes,
        "answered_rightly": len(areas),
        "chance": mean(areas),
        "methods": rows,
        "default_is_best": best,
    }


def pointing(hits: list[bool]) -> dict[str, Any]:
    low, high = wilson(sum(hits), len(hits))
    return {"pointing": sum(hits) / max(1, len(hits)), "interval": [low, high], "hits": sum(hits)}


def mean(values: list[float]) -> dict[str, float]:
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "standard_error": error}


def show(row: dict[str, Any]) -> None:
    answered, chance = row["answered_rightly"], row["chance"]["mean"]
    print(f"{row['size']}: {answered} of {row['scenes']} right, chance {chance:.1%}")
    for name, scores in row["methods"].items():
        rest = {key: scores[key]["mean"] for key in scores if "mass" in key or "gain" in key}
        if name in METHODS:
            rest["patch_touches_object"] = scores["patch_touches_object"]
        told = "  ".join(f"{key} {value:.3f}" for key, value in rest.items())
        low, high = scores["interval"]
        print(f"  {name:28} {scores['pointing']:.1%} ({low:.1%} to {high:.1%})  {told}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a model of the ten shapes")
    parser.add_argument("--scenes", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1, help="of the scenes; training's is 0")
    parser.add_argument("--sizes", type=int, nargs="+", help="default: its own, and half as much")
    parser.add_argument("--steps", type=int, default=20, help="of deletion; 0 leaves it out")
    parser.add_argument("--goal", type=float, default=90.0)
    parser.add_argument("--name", default="pointing", help="of the file under results/, or a path")
    arguments = parser.parse_args()
    classifier = vitral.load(arguments.run)
    model, card = classifier.model.float().cpu(), classifier.card
    assert isinstance(model, ViT)
    if card.classes != KINDS:
        sys.exit(f"{arguments.run} does not name the shapes: {', '.join(card.classes)}")
    own = card.images.size[0]
    rows = []
    for side in arguments.sizes or (own, own * 3 // 2):
        resized = model if (side, side) == model.spec.size else model.resized((side, side)).eval()
        rows.append(measure(resized, replace(card.images, size=(side, side)), arguments))
        show(rows[-1])
    reached = all(
        row["default_is_best"] and 100 * row["methods"][METHODS[0]]["pointing"] >= arguments.goal
        for row in rows[:1]
    )
    figures = {
        "settings": vars(arguments) | {"run": Path(arguments.run).name},
        "model": card.model.to_dict(),
        "accuracy_of_the_run": card.metrics.get("accuracy"),
        "grad_cam": "pytorch-grad-cam" if INSTALLED else "its formula, written in the benchmark",
        "sizes": rows,
        "goal_reached": reached,
    }
    print(write(arguments.name, figures))
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
