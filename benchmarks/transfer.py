"""Transfer works: half of the classes teach the other half, and a probe is a model at once.

    .venv/bin/python benchmarks/transfer.py imagenette128/ [--low 96] [--high 128] [--steps 800]
        [--share 0.75] [--each 20] [--probe-images 1000] [--threads 2] [--name transfer]
    .venv/bin/python benchmarks/transfer.py shapes --low 48 --high 64 ...

The first half of the classes pre-trains at the low size for a share of the steps; the second half,
with --each training images to a class, fine-tunes from there at the high size for the rest. From
scratch the second half gets all the steps at the high size, with the same recipe: more arithmetic
than the two together. Then the head alone is solved for on --probe-images images of the second
half, from the same pre-trained weights, timed as a whole process. The validation images choose
nothing. Writes benchmarks/results/NAME.json.
"""

import argparse
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from record import trained, write
from vitral.data.shapes import KINDS, draw
from vitral.planning.plan import plan
from vitral.planning.request import Request
from vitral.recipes import named

HELD_OUT = 200  # scenes of each kind that are drawn for validation
LAST = ('select="last"', 'evaluate_every="1000000 steps"')  # validation chooses nothing


def drawn(folder: Path, each: int, size: int) -> Path:
    """`each` training scenes of every kind of shape, and HELD_OUT others, as class folders."""
    wanted = {"train": each, "val": HELD_OUT}
    for seed, (part, count) in enumerate(wanted.items()):
        left = dict.fromkeys(range(len(KINDS)), count)
        index = 0
        while any(left.values()):
            scene = draw(seed, index, size)
            if left[scene.label]:
                left[scene.label] -= 1
                path = folder / part / KINDS[scene.label] / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(scene.image).save(path)
            index += 1
    return folder


def taken(source: Path, classes: list[str], target: Path, each: int | None) -> Path:
    """A copy of these classes with the first `each` training images of every one (None: all)."""
    for part in ("train", "val"):
        for name in classes:
            (target / part / name).mkdir(parents=True)
            files = sorted((source / part / name).iterdir())
            for file in files[: each if part == "train" else None]:
                shutil.copyfile(file, target / part / name / file.name)
    return target


def lasting(steps: int) -> tuple[str, ...]:
    return (*LAST, f'length="{steps} steps"', f'schedule.warmup="{max(1, steps // 10)} steps"')


def same_network(data: Path, arguments: argparse.Namespace) -> list[str]:
    """Stem and patch of the high size: the recipe's own follow the size of the pictures."""
    asked = Request(
        data=str(data), recipe="scratch-small", size=arguments.high, changes=arguments.changes
    )
    model = plan(asked).recipe.model
    stem = [f"model.resnet.blocks={list(model.resnet.blocks)}"] if model.resnet else []
    return [f"model.patch={list(model.patch)}", *stem]


def compare(arguments: argparse.Namespace, place: Path) -> dict[str, Any]:
    """The four runs."""
    if arguments.photos == "shapes":
        photos = drawn(place / "shapes", arguments.drawn, arguments.high)
    else:
        photos = Path(arguments.photos)
    names = sorted(path.name for path in (photos / "train").iterdir())
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    first = taken(photos, halves[0], place / "first", None)
    second = taken(photos, halves[1], place / "second", arguments.each)
    before = round(arguments.share * arguments.steps)
    after = arguments.steps - before
    changes = (*same_network(second, arguments), *arguments.changes)
    scratch = ("--recipe", "scratch-small", "--batch", arguments.batch)
    base, high = place / "pre-trained", ("--size", arguments.high)
    figures: dict[str, Any] = {"classes": halves}
    figures["pre-trained"] = trained(
        first, base, *scratch, "--size", arguments.low, changes=(*lasting(before), *changes)
    )
    start = ("--from", base / "best")
    tuning = ("--recipe", "finetune-small", "--batch", arguments.batch)
    rate = named("finetune-small").optimizer.lr * math.sqrt(arguments.batch / 64)
    figures["fine-tuned"] = trained(
        second,
        place / "fine-tuned",
        *start,
        *tuning,
        *high,
        changes=(f"optimizer.lr={rate}", *lasting(after)),
    )
    figures["from scratch"] = trained(
        second,
        place / "from scratch",
        *scratch,
        *high,
        changes=(*lasting(arguments.steps), *changes),
    )
    few = taken(photos, halves[1], place / "few", arguments.probe_images // len(halves[1]))
    figures["probe"] = trained(few, place / "probe", *start, "--recipe", "probe", *high)
    points = figures["fine-tuned"]["accuracy"] - figures["from scratch"]["accuracy"]
    return figures | {"points": 100 * points}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", help="class folders under train/ and val/, or 'shapes'")
    parser.add_argument("--low", type=int, default=96, help="pixels of the pre-training")
    parser.add_argument("--high", type=int, default=128, help="pixels of everything else")
    parser.add_argument("--steps", type=int, default=800, help="of both ways in all")
    parser.add_argument("--share", type=float, default=0.75, help="of the steps that pre-train")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--each", type=int, default=20, help="training images to a target class")
    parser.add_argument("--drawn", type=int, default=1000, help="scenes to a class of shapes")
    parser.add_argument("--probe-images", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--changes", nargs="*", default=[], help="of the scratch-small recipe")
    parser.add_argument("--name", default="transfer", help="of the file under results/")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    with tempfile.TemporaryDirectory() as place:
        figures = compare(arguments, Path(place))
    print(f"fine-tuned {figures['points']:+.1f} points against from scratch")
    settings = vars(arguments) | {"photos": Path(arguments.photos).name}
    print(write(arguments.name, {"settings": settings, **figures}))


if __name__ == "__main__":
    main()
