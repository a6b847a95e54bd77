"""Training that is wrong hides easily; these two show it from both sides."""

import shutil
from pathlib import Path

from drawn import draw_folder
from vitral import train
from vitral.data.shapes import KINDS


def test_forty_images_are_memorised(tmp_path: Path) -> None:
    data = tmp_path / "data"
    draw_folder(data / "train", kinds=4, each=10)
    shutil.copytree(data / "train", data / "val")  # "validation" asks for the very same images
    run = train(
        data,
        model="mu/8",
        size=32,
        epochs=150,
        out=tmp_path / "run",
        changes=[
            "model.depth=3",
            "model.width=64",
            "model.heads=4",
            "model.mlp_width=256",
            "data.batch=20",
            "data.workers=0",
            'augment.crop="none"',
            "augment.flip=0",
            "augment.trivial=false",
            "objective.label_smoothing=0",
            "noise.drop_path=0",
            "ema=0.9",
            "optimizer.lr=2e-3",
            "evaluate_every=150 epochs",
        ],
    )
    assert run.evaluation.samples == 40
    assert run.evaluation.accuracy == 1.0


def test_shuffled_labels_stay_at_chance(tmp_path: Path) -> None:
    """Images in class folders that say nothing about them: nothing to learn but chance."""
    drawn = draw_folder(tmp_path / "drawn", kinds=10, each=40)
    files = sorted(drawn.rglob("*.jpg"), key=lambda path: (int(path.stem) * 7919) % 10007)
    for number, path in enumerate(files):
        split = "train" if number % 2 else "val"
        target = tmp_path / "data" / split / KINDS[number // 2 % 5] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    run = train(
        tmp_path / "data",
        model="mu/8",
        size=32,
        epochs=10,
        out=tmp_path / "run",
        changes=["data.workers=0", 'select="last"'],
    )
    low, high = run.evaluation.interval
    assert run.evaluation.samples == 200
    assert low <= 0.2 <= high
