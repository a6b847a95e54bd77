"""Pre-training on some classes helps others at a higher resolution (section 4 of the paper)."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vitral import train
from vitral.data.shapes import KINDS, draw

TINY = [
    "model.width=64",
    "model.depth=4",
    "model.heads=4",
    "model.mlp_width=256",
    'augment.crop="none"',
    "augment.trivial=false",
    "noise.drop_path=0",
    "data.workers=1",
    'select="last"',
    "evaluate_every=100000 steps",
    "data.batch=32",
]


def drawn(folder: Path, kinds: range, each: dict[str, int], size: int, seed: int) -> Path:
    """Class folders of these kinds, `each` scenes of a split to a class."""
    left = {(part, kind): count for part, count in each.items() for kind in kinds}
    for index in itertools.count():
        scene = draw(seed, index, size)
        part = next((part for part in each if left.get((part, scene.label))), None)
        if part is not None:
            left[part, scene.label] -= 1
            path = folder / part / KINDS[scene.label] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(scene.image).save(path)
        if not any(left.values()):
            return folder
    raise AssertionError


def steps(count: int) -> list[str]:
    return [f"length={count} steps", f"schedule.warmup={count // 10} steps"]


@pytest.mark.proof
def test_half_of_the_classes_teach_the_other_half(tmp_path: Path) -> None:
    """600 steps on five kinds at 32 px and 200 on five others at 48 px, against 800 there alone."""
    many, few = {"train": 400, "val": 20}, {"train": 40, "val": 200}
    first = drawn(tmp_path / "first", range(5), many, 32, seed=1)
    second = drawn(tmp_path / "second", range(5, 10), few, 48, seed=2)

    def run(name: str, data: Path, count: int, **settings: Any) -> float:
        own = TINY[4:] if "start" in settings else TINY  # weights bring their network
        changes = [*own, *steps(count)]
        done = train(data, out=tmp_path / name, changes=changes, **settings)
        return done.evaluation.accuracy

    run("base", first, 600, model="Ti/8", size=32)
    tuned = run("tuned", second, 200, start=tmp_path / "base", size=48)
    alone = run("alone", second, 800, model="Ti/8", size=48)
    assert tuned > alone + 0.03, (tuned, alone)
    assert tuned > 0.26, "chance is 0.2"
