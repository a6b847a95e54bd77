"""Training views from files: decode, random crop, resize, flip, normalise; images per second.

    .venv/bin/python benchmarks/loading.py [--photos imagenette128/ or .tar.gz] [--rounds 15]
        [--name loading] [--quick]

One core, one process, no workers; each contender makes the same number of float (3, 224, 224)
views in turn, in another order every round, so that a busy machine slows all of them alike:
Vitral's train_batches, timm's loader (its defaults but for colour jitter, which the others do not
do, and bicubic interpolation), torchvision's transforms in a DataLoader, plain Pillow, and, where
it is installed, OpenCV twice: its fast way, without antialiasing, and with it. A ratio is Vitral's
rate over theirs in the same round: its median and quartiles. The pictures are 500 x 375 photographs
made from the real ones that scikit-learn and matplotlib bring along, and those of --photos. On
--photos it also measures which share of its time a Ti/16 training step at 128 pixels waits for
data, on all cores. Writes benchmarks/results/NAME.json.
"""

import argparse
import importlib
import importlib.util
import random
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from record import write
from vitral import machine
from vitral.data.datasets import open_dataset
from vitral.data.loader import View, train_batches
from vitral.engines.torch_engine import autocast
from vitral.images import augment
from vitral.images.preprocess import normalise
from vitral.model import build
from vitral.planning.plan import plan
from vitral.planning.request import Request
from vitral.specs import ImageSpec
from vitral.specs.augment import Augment
from vitral.training import optimizer
from vitral.training.objectives import classification
from vitral.training.recipe import Classification

SPEC = ImageSpec(size=(224, 224))
VIEWS = Augment()
BATCH = 32
PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "imagenette128.tar.gz"

Batches = Iterator[Tensor]


def make_photographs(folder: Path, number: int) -> Path:
    """Windows of real photographs at 500 x 375, about 90 kB each, in two class folders.

    Each file has twenty names, so that the seam between two epochs does not weigh.
    """
    generator = np.random.default_rng(0)
    portrait = get_sample_data("grace_hopper.jpg", asfileobj=False)
    pictures = [Image.open(portrait).convert("RGB")]
    pictures += [Image.fromarray(image) for image in load_sample_images().images]
    for index in range(number):
        picture = pictures[index % len(pictures)]
        width = generator.uniform(0.6, 1) * min(picture.width, picture.height * 4 / 3)
        left = generator.uniform(0, picture.width - width)
        top = generator.uniform(0, picture.height - width * 3 / 4)
        window = (left, top, left + width, top + width * 3 / 4)
        view = picture.resize((500, 375), Image.Resampling.LANCZOS, box=window)
        noisy = np.asarray(view) + generator.normal(0, 3, (375, 500, 3))
        path = folder / "ab"[index % 2] / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=95)
        for copy in range(1, 20):
            path.with_stem(f"{index}-{copy}").hardlink_to(path)
    return folder


def vitral_batches(folder: Path) -> Batches:
    split = open_dataset(str(folder), val_fraction=0.02).train
    batches = train_batches(
        split, [View(VIEWS, SPEC)], batch=BATCH, seed=0, start_step=0, workers=0
    )
    for batch in batches:
        yield normalise(batch.images, SPEC)


def timm_batches(folder: Path) -> Batches:
    data = importlib.import_module("timm.data")
    loader = data.create_loader(
        data.create_dataset("", root=str(folder)),
        input_size=(3, 224, 224),
        batch_size=BATCH,
        is_training=True,
        color_jitter=None,
        interpolation="bicubic",
        mean=SPEC.mean,
        std=SPEC.std,
        num_workers=0,
        persistent_workers=False,
        device=torch.device("cpu"),
    )
    for _ in count():
        for images, _ in loader:
            yield images


def torchvision_batches(folder: Path) -> Batches:
    v2 = augment.transforms()
    steps = [
        v2.RandomResizedCrop(224, interpolation=v2.InterpolationMode.BICUBIC),
        v2.RandomHorizontalFlip(),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(SPEC.mean, SPEC.std),
    ]
    datasets = importlib.import_module("torchvision.datasets")
    folder_of_images = datasets.ImageFolder(str(folder), v2.Compose(steps))
    loader = torch.utils.data.DataLoader(
        folder_of_images, batch_size=BATCH, shuffle=True, drop_last=True
    )
    for _ in count():
        for images, _ in loader:
            yield images


def by_hand(folder: Path, view: Callable[[Path, random.Random], np.ndarray]) -> Batches:
    """Batches of views uint8 (224, 224, 3), made one by one and normalised together."""
    paths, dice = sorted(folder.rglob("*.jp*g")), random.Random(0)
    while True:
        views = np.stack([view(dice.choice(paths), dice) for _ in range(BATCH)])
        yield normalise(torch.from_numpy(views).permute(0, 3, 1, 2), SPEC)


def window(height: int, width: int, dice: random.Random) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of an inception crop, as torchvision draws it."""
    for _ in range(10):
        area = height * width * dice.uniform(0.08, 1)
        ratio = (4 / 3) ** dice.uniform(-1, 1)
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if w <= width and h <= height:
            left, top = dice.randint(0, width - w), dice.randint(0, height - h)
            return left, top, left + w, top + h
    return 0, 0, width, height


def pillow_batches(folder: Path) -> Batches:
    def view(path: Path, dice: random.Random) -> np.ndarray:
        image = Image.open(path).convert("RGB")
        box = window(image.height, image.width, dice)
        image = image.crop(box).resize((224, 224), Image.Resampling.BICUBIC)
        flipped = dice.random() < 0.5
        return np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else image)

    return by_hand(folder, view)


def opencv_batches(folder: Path, antialiased: bool = False) -> Batches:
    """Linear interpolation without antialiasing: its fast way, and less work than the others'.

    Antialiased, as the others: areas are averaged where a side shrinks, cubic where both grow.
    """
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(1)

    def view(path: Path, dice: random.Random) -> np.ndarray:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        left, top, right, bottom = window(image.shape[0], image.shape[1], dice)
        shrinks = max(right - left, bottom - top) > 224
        careful = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        way = careful if antialiased else cv2.INTER_LINEAR
        image = cv2.resize(image[top:bottom, left:right], (224, 224), interpolation=way)
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return cv2.flip(image, 1) if dice.random() < 0.5 else image

    return by_hand(folder, view)


CONTENDERS: dict[str, tuple[str, Callable[[Path], Batches]]] = {  # name: (module, its batches)
    "vitral": ("vitral", vitral_batches),
    "timm": ("timm", timm_batches),
    "torchvision": ("torchvision", torchvision_batches),
    "pillow": ("PIL", pillow_batches),
    "opencv": ("cv2", opencv_batches),
    "opencv_antialiased": ("cv2", partial(opencv_batches, antialiased=True)),
}


def compare(label: str, folder: Path, rounds: int, batches: int) -> dict[str, Any]:
    """Images per second of each contender, and Vitral's ratio to it, round by round."""
    running = {}
    for name, (module, begin) in CONTENDERS.items():
        if importlib.util.find_spec(module):
            running[name] = begin(folder)
            first = next(running[name])
            assert first.shape == (BATCH, 3, 224, 224) and first.dtype == torch.float32, name
        else:
            print(f"{module} is not installed: not compared")
    rates: dict[str, list[float]] = {name: [] for name in running}
    order = list(running)
    for number in range(rounds):
        random.Random(number).shuffle(order)
        for name in order:
            started = time.perf_counter()
            for _ in range(batches):
                next(running[name])
            rates[name].append(batches * BATCH / (time.perf_counter() - started))
    result = {}
    for name, measured in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(rates["vitral"], measured, strict=True)]
        low, _, high = quantiles(ratios, n=4)
        result[name] = {
            "images_per_second": median(measured),
            "vitral_ratio": median(ratios),
            "quartiles": [low, high],
        }
        print(
            f"{label} {name:18} {median(measured):6.0f} images/s  "
            f"ratio {median(ratios):.2f} [{low:.2f}, {high:.2f}]",
            flush=True,
        )
    return result


def waiting(folder: Path, steps: int) -> dict[str, float]:
    """Which share of its time a training step waits for data, after the first few steps."""
    cores = machine.cores()
    torch.set_num_threads(cores)
    recipe = plan(Request(data=str(folder), model="Ti/16", size=128)).recipe
    split = open_dataset(str(folder)).train
    network = build(recipe.model).train()
    adamw, device = optimizer.build(network, recipe.optimizer), torch.device("cpu")
    batches = train_batches(
        split,
        [View(recipe.augment, recipe.images)],
        batch=recipe.data.batch,
        seed=0,
        start_step=0,
        workers=max(1, cores - 1),  # as a run chooses
    )
    waited = total = 0.0
    with closing(batches):
        for step in range(-3, steps):
            started = time.perf_counter()
            batch = next(batches)
            ready = time.perf_counter()
            with autocast("auto", device, recipe.model.width):
                logits = network.logits_per_head(normalise(batch.images, recipe.images))
            classification.losses(logits, batch.labels, Classification()).mean().backward()
            adamw.step()
            adamw.zero_grad(set_to_none=True)
            if step >= 0:
                waited += ready - started
                total += time.perf_counter() - started
    share = {"share": waited / total, "step_seconds": total / steps, "cores": cores}
    print(f"Ti/16 at 128 pixels waits {100 * share['share']:.1f} % of a step of", end=" ")
    print(f"{share['step_seconds']:.2f} s on {cores} cores")
    return share


def unpacked(photos: Path, place: Path) -> Path:
    """The folder, or what the archive holds."""
    if photos.is_dir():
        return photos
    with tarfile.open(photos) as archive:
        archive.extractall(place, filter="data")
    inside = list(place.iterdir())
    return inside[0] if len(inside) == 1 else place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, default=PHOTOS if PHOTOS.exists() else None)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--name", default="loading", help="of the file under results/")
    parser.add_argument("--quick", action="store_true", help="to see that it works; writes nothing")
    arguments = parser.parse_args()
    augment.transforms()  # makes torchvision importable where its wheel was built for another torch
    rounds, batches = (2, 1) if arguments.quick else (arguments.rounds, 4)
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        made = make_photographs(Path(place) / "made", 99)
        rows["500x375"] = compare("500x375", made, rounds, batches)
        if arguments.photos:
            photos = unpacked(arguments.photos, Path(place) / "photos")
            train = photos / "train" if (photos / "train").is_dir() else photos
            label = arguments.photos.name.removesuffix(".tar.gz")
            rows[label] = compare(label, train, rounds, batches)
            rows["waiting"] = waiting(photos, 2 if arguments.quick else 40)
    if not arguments.quick:
        print(write(arguments.name, {"settings": {"rounds": rounds, "batch": BATCH}, "rows": rows}))


if __name__ == "__main__":
    main()
