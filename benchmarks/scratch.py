"""Photographs from scratch beside timm's recipe: same network, minutes and threads.

    .venv/bin/python benchmarks/scratch.py imagenette128/ [--minutes 45] [--threads 2]
        [--changes KEY=VALUE ...] [--timm-lr 1e-3] [--timm-light] [--only vitral] [--name scratch]
        [--measure-only] [--fitting EPOCHS]

Each side is a process of its own, pinned to as many cores as it has threads, and first runs twice
for a few steps, which tells the seconds of a step and of all else (imports, reading the folder,
one evaluation). Its schedule is then as long as the minutes allow, and one run is made. Both are
evaluated once, at their end, with their averaged weights, so the held-out images choose nothing.
The measuring needs an idle machine. The long run does not, if --measure-only has told before how
many epochs fit and --fitting repeats it: what it learns depends on its epochs alone.

Ours is `vitral train --recipe scratch-small`. timm's training script is no part of its package, so
its loop is written here from the package's own parts, with the flags that its documentation gives
for a ViT from scratch (DeiT's): AdamW, weight decay 0.05, cosine per step to 1e-5 with warm-up,
rand-m9-mstd0.5-inc1, mixup 0.8, cutmix 1, erasing 0.25, smoothing 0.1, drop path 0.1, averaged
weights; the learning rate is ours, since DeiT's is for batches of 1024. --timm-light leaves out
mixing, RandAugment, erasing and drop path. Writes benchmarks/results/NAME.json.
"""

import argparse
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from record import trained, write
from vitral.engines.torch_engine import autocast
from vitral.evaluation.single_label import wilson
from vitral.images import augment
from vitral.planning.plan import plan
from vitral.planning.request import Request
from vitral.specs import ModelSpec

MARGIN = 0.96  # of the minutes that is planned; a run longer than its minutes does not count
DEVICE = torch.device("cpu")


def ours(arguments: argparse.Namespace, epochs: float, out: Path) -> dict[str, Any]:
    """`vitral train` as a person would call it, on the device of timm's side."""
    changes = ['select="last"', f'evaluate_every="{math.ceil(epochs)} epochs"', *arguments.changes]
    words = ["--recipe", "scratch-small", "--epochs", epochs, "--seed", arguments.seed]
    words += ["--device", DEVICE]
    found = trained(arguments.photos, out, *words, changes=changes)
    return {"accuracy": found["accuracy"], "samples": found["samples"]}


def theirs(arguments: argparse.Namespace, epochs: float, out: Path) -> dict[str, Any]:
    """This file again, as the process of timm's side."""
    words = [sys.executable, __file__, *map(str, sys.argv[1:])]
    words += ["--side", "timm", "--epochs", str(epochs), "--out", str(out)]
    subprocess.run(words, check=True)
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return result


def timm_network(spec: ModelSpec, classes: int, drop_path: float) -> nn.Module:
    """timm's own network of these dimensions, with timm's first weights."""
    hybrid = importlib.import_module("timm.models.vision_transformer_hybrid")
    layers = importlib.import_module("timm.layers")
    timm = importlib.import_module("timm")
    stem: dict[str, Any] = {"patch_size": spec.patch[0]}
    if spec.resnet is not None:  # as timm makes vit_tiny_r_s16_p8_224
        backbone = importlib.import_module("timm.models.resnetv2").ResNetV2(
            layers=spec.resnet.blocks,
            channels=tuple(spec.resnet.width * 4 * 2**i for i in range(len(spec.resnet.blocks)))
            or (256,),
            stem_chs=spec.resnet.width,
            num_classes=0,
            global_pool="",
            preact=False,
            stem_type="same",
            conv_layer=layers.StdConv2dSame,
        )
        stem = {
            "embed_layer": lambda **settings: hybrid.HybridEmbed(backbone, **settings),
            "patch_size": spec.patch[0],
        }
    network: nn.Module = timm.models.VisionTransformer(
        img_size=spec.size,
        num_classes=classes,
        global_pool="token" if spec.pool == "cls" else "avg",
        class_token=spec.class_token,
        embed_dim=spec.width,
        depth=spec.depth,
        num_heads=spec.heads,
        mlp_ratio=spec.mlp_width / spec.width,
        fc_norm=False,  # the norm before the pooling, as ours
        drop_path_rate=drop_path,
        **stem,
    )
    return network


def spare_one_bit() -> None:
    """timm's RandAugment posterises to 0 bits at times, which Pillow 13 refuses; take 1."""
    operations = importlib.import_module("timm.data.auto_augment")
    original = operations.NAME_TO_OP["PosterizeIncreasing"]

    def posterise(picture: Any, bits: int, **settings: Any) -> Any:
        return original(picture, max(1, bits), **settings)

    operations.NAME_TO_OP["PosterizeIncreasing"] = posterise


def timm_loaders(arguments: argparse.Namespace, batch: int, spec: ModelSpec) -> tuple[Any, Any]:
    """timm's training and evaluation loaders; one loading process, as ours on two cores."""
    data = importlib.import_module("timm.data")
    spare_one_bit()
    statistics = {"mean": data.IMAGENET_DEFAULT_MEAN, "std": data.IMAGENET_DEFAULT_STD}
    common: dict[str, Any] = statistics | {
        "input_size": (3, *spec.size),
        "batch_size": batch,
        "interpolation": "bicubic",
        "num_workers": max(1, arguments.threads - 1),
        "device": DEVICE,
        "use_prefetcher": False,
    }
    root = Path(arguments.photos)
    strong = {"auto_augment": "rand-m9-mstd0.5-inc1", "re_prob": 0.25, "re_mode": "pixel"}
    train = data.create_loader(
        data.create_dataset("", root=str(root / "train")),
        is_training=True,
        color_jitter=0.0 if arguments.timm_light else 0.4,
        **({} if arguments.timm_light else strong),
        **common,
    )
    val = data.create_loader(
        data.create_dataset("", root=str(root / "val")), crop_pct=1.0, **common
    )
    return train, val


def train_timm(arguments: argparse.Namespace) -> dict[str, Any]:
    """The loop of timm's train.py for one process: step, schedule by step, averaged weights."""
    augment.transforms()  # makes torchvision importable where its wheel was built for another torch
    data, optim = importlib.import_module("timm.data"), importlib.import_module("timm.optim")
    utilities = importlib.import_module("timm.utils")
    scheduler = importlib.import_module("timm.scheduler")
    torch.manual_seed(arguments.seed)
    recipe = plan(request(arguments)).recipe
    train, val = timm_loaders(arguments, recipe.data.batch, recipe.model)
    classes, light = len(train.dataset.reader.class_to_idx), arguments.timm_light
    model = timm_network(recipe.model, classes, 0.0 if light else 0.1).train()
    optimizer = optim.create_optimizer_v2(model, "adamw", lr=arguments.timm_lr, weight_decay=0.05)
    average = utilities.ModelEmaV3(model, decay=0.999, use_warmup=True)
    steps = max(1, round(arguments.epochs * len(train)))
    schedule, _ = scheduler.create_scheduler_v2(
        optimizer,
        num_epochs=steps,  # its epochs are our steps, as a run may end inside an epoch
        updates_per_epoch=1,
        step_on_epochs=False,
        warmup_epochs=max(1, steps // 10),
        warmup_lr=1e-6,
        min_lr=1e-5,
    )
    mixup = data.Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=classes)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1 if light else 0.0)
    step = 0
    while step < steps:
        for images, labels in train:
            if step == steps:
                break
            views, targets = (images, labels) if light else mixup(images, labels)
            with autocast("auto", DEVICE, recipe.model.width):
                loss = loss_of(model(views).float(), targets)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            average.update(model, step=step)
            schedule.step_update(step)
    return timm_score(average.module, val, recipe.model.width)


def timm_score(model: nn.Module, val: Any, width: int) -> dict[str, Any]:
    """Right answers among the held-out images, in the precision that ours would take."""
    right = total = 0
    model.eval()
    with torch.inference_mode(), autocast("auto", DEVICE, width):
        for images, labels in val:
            right += int((model(images).argmax(1) == labels).sum())
            total += len(labels)
    return {"accuracy": right / total, "samples": total}


SIDES = {"vitral": ours, "timm": theirs}


def request(arguments: argparse.Namespace) -> Request:
    return Request(data=arguments.photos, recipe="scratch-small", changes=arguments.changes)


def timed(side: str, arguments: argparse.Namespace, epochs: float, out: Path) -> tuple[float, Any]:
    started = time.perf_counter()
    result = SIDES[side](arguments, epochs, out)
    return time.perf_counter() - started, result


def longest(seconds: float, short: tuple[float, float], long: tuple[float, float]) -> float:
    """Epochs that fit into the seconds, from the (epochs, seconds) of two short runs."""
    an_epoch = (long[1] - short[1]) / (long[0] - short[0])
    beside = short[1] - short[0] * an_epoch
    return (MARGIN * seconds - beside) / an_epoch


def compete(side: str, arguments: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Measure, plan, and make the one run of a side."""
    probes = []
    for epochs in () if arguments.fitting else arguments.probes:
        seconds, _ = timed(side, arguments, epochs, place / f"{side}-{epochs}")
        probes.append((epochs, seconds))
    epochs = arguments.fitting or round(longest(60 * arguments.minutes, *probes), 2)
    print(f"{side}: {epochs} epochs fit into {arguments.minutes:g} minutes", flush=True)
    if arguments.measure_only:
        return {"epochs": epochs, "probes": probes}
    seconds, result = timed(side, arguments, epochs, place / side)
    right, total = round(result["accuracy"] * result["samples"]), result["samples"]
    row = {"epochs": epochs, "minutes": round(seconds / 60, 2), **result}
    row["interval"] = list(wilson(right, total))
    # minutes of a run beside others say nothing
    row["within"] = None if arguments.fitting else seconds <= 60 * arguments.minutes
    print(f"{side}: {row}", flush=True)
    return row


def difference(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Points of accuracy between two sides, with 95 % bounds as if their errors were unrelated."""
    parts = [row["accuracy"] * (1 - row["accuracy"]) / row["samples"] for row in (first, second)]
    points, wide = 100 * (first["accuracy"] - second["accuracy"]), 196 * math.sqrt(sum(parts))
    return {"points": points, "interval": [points - wide, points + wide]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", help="class folders under train/ and val/")
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--changes", nargs="*", default=[], help="of our recipe, as after --set")
    parser.add_argument("--timm-lr", type=float, default=1e-3)
    parser.add_argument("--timm-light", action="store_true")
    parser.add_argument("--probes", type=float, nargs=2, default=(0.1, 0.4), help="epochs")
    parser.add_argument("--only", choices=SIDES)
    parser.add_argument("--measure-only", action="store_true", help="how many epochs fit")
    parser.add_argument("--fitting", type=float, help="epochs, as measured before; with --only")
    parser.add_argument("--name", default="scratch", help="of the file under results/")
    parser.add_argument("--side", choices=["timm"], help=argparse.SUPPRESS)
    parser.add_argument("--epochs", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    torch.set_num_threads(arguments.threads)
    if arguments.side:
        arguments.out.write_text(json.dumps(train_timm(arguments)))
        return
    sides = [arguments.only] if arguments.only else list(SIDES)
    with tempfile.TemporaryDirectory() as place:
        rows = {side: compete(side, arguments, Path(place)) for side in sides}
    if arguments.measure_only:
        print(json.dumps(rows))
        return
    recipe = plan(request(arguments)).recipe.to_dict()
    settings = vars(arguments) | {"photos": Path(arguments.photos).name}
    recipe["data"]["source"] = settings["photos"]
    figures: dict[str, Any] = {"settings": settings, "recipe": recipe, "sides": rows}
    if not arguments.only:
        figures["difference"] = difference(rows["vitral"], rows["timm"])
        print(f"difference: {figures['difference']}")
    print(write(arguments.name, figures))


if __name__ == "__main__":
    main()
