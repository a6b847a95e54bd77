import os
from pathlib import Path

import pytest
import torch

from contexts import context
from planned import resolve
from vitral.planning.plan import open_data
from vitral.planning.request import Request
from vitral.training import run_folder
from vitral.training.display import Display
from vitral.training.session import Session, begin_run


def begin(tmp_path: Path, *changes: str, data: str = "digits") -> Session:
    recipe = resolve(Request(data=data, changes=changes))
    opened = open_data(recipe.data, recipe.images.size)
    recipe = run_folder.with_data(recipe, opened)
    return begin_run(context(recipe, opened, tmp_path, Display(quiet=True)))


def test_lengths(tmp_path: Path) -> None:
    session = begin(
        tmp_path,
        "schedule.warmup=0 epochs",
        "length=2 epochs",
        "data.batch=100",
        "evaluate_every=5 steps",
    )
    assert session.epoch_steps == len(session.run.data.train) // 100 == 14
    assert session.total == 28
    owing = []
    for step in range(29):
        session.progress.step = step
        if session.validation_due:
            owing.append(step)
            session.progress.validated_step = step
            assert not session.validation_due
    assert owing == [5, 10, 15, 20, 25, 28]
    assert session.epoch == 2.0


def test_a_run_of_less_than_a_step_has_one(tmp_path: Path) -> None:
    assert begin(tmp_path, "length=0.001 epochs", "schedule.warmup=0 epochs").total == 1


def test_workers(tmp_path: Path) -> None:
    assert begin(tmp_path).workers == 0
    assert begin(tmp_path, "data.workers=2").workers == 2
    assert begin(tmp_path, "data.workers=100000").workers <= 2 * (os.cpu_count() or 1)
    assert begin(tmp_path, "data.count=20", data="shapes").workers >= 1


def test_the_held_out_images_do_not_depend_on_the_seed(tmp_path: Path) -> None:
    first, second = begin(tmp_path, "seed=1"), begin(tmp_path, "seed=2")
    assert first.run.data.fingerprint == second.run.data.fingerprint
    assert first.run.data.val.rows.tolist() == second.run.data.val.rows.tolist()
    assert begin(tmp_path, "data.split_seed=1").run.data.fingerprint != first.run.data.fingerprint


def test_the_average_is_there_only_when_asked_for(tmp_path: Path) -> None:
    session = begin(tmp_path, "ema=0")
    assert not session.ema.tensors
    assert begin(tmp_path, "ema=0.9").ema.tensors


@pytest.mark.parametrize("name", ["drop_path", "dropout"])
def test_noise_reaches_the_network(tmp_path: Path, name: str) -> None:
    session = begin(tmp_path, f"noise.{name}=0.5")
    torch.nn.init.normal_(session.backbone.get_parameter("head.weight"))
    images = torch.randn(8, 3, *session.run.recipe.images.size)
    assert not torch.equal(session.backbone(images), session.backbone(images))
