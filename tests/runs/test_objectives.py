"""The loop trains whatever an objective is: several views, an averaged teacher, a score of its own.

The objective of these tests is a student that agrees with an averaged teacher on another view of
the same picture; no label is read.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from drawn import draw_folder
from vitral.data.datasets import Dataset, open_dataset
from vitral.data.loader import Batch, View
from vitral.images.preprocess import normalise
from vitral.model import ViT, build
from vitral.recipes import named
from vitral.specs import Calibration
from vitral.training import loop, objectives, state
from vitral.training.display import Display
from vitral.training.objectives import Loss, Objective, Observed, StepPosition
from vitral.training.objectives.masked_patches import PatchScore
from vitral.training.recipe import Recipe, steps


class Agreement(Objective):
    """A student agrees with a teacher, the moving average of itself, on the other view."""

    def __init__(self, backbone: ViT, recipe: Recipe) -> None:
        global_view = View(recipe.augment, recipe.images)
        mirrored = View(replace(recipe.augment, flip=1.0), recipe.images)
        super().__init__(backbone, recipe.images, [global_view, mirrored], "fp32")
        self.predictor = nn.Linear(backbone.spec.width, backbone.spec.width)
        self.teacher = build(backbone.spec).requires_grad_(False)
        self.teacher.load_state_dict(backbone.state_dict())
        self.updates: list[int] = []

    def forward(self, batch: Batch, position: StepPosition) -> Loss:
        first, second = (normalise(view, self.images) for view in batch.views)
        student = self.predictor(self.backbone.representation(first))
        with torch.no_grad():
            taught = self.teacher.representation(second)
        losses = (student - taught).square().mean(1)
        return Loss(losses.sum(), {"near": (losses < 1).float().sum()})

    @torch.no_grad()
    def after_update(self, step: int) -> None:
        self.updates.append(step)
        for mine, theirs in zip(self.teacher.parameters(), self.backbone.parameters(), strict=True):
            mine.lerp_(theirs, 0.1)

    def observe(self, batch: Batch, backbone: ViT | None = None) -> Tensor:
        images = normalise(batch.images, self.images)
        student = self.predictor(self.backbone.representation(images))
        losses = (student - self.teacher.representation(images)).square().mean(1)
        return torch.stack([losses, 1 / (1 + losses), torch.zeros_like(losses)], dim=1)

    def score(self, observed: Observed, calibration: Calibration | None = None) -> PatchScore:
        return PatchScore.of(observed.values)


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Agreement]]:
    made: list[Agreement] = []

    def agreement(backbone: ViT, recipe: Recipe, *_: object, **__: object) -> Agreement:
        made.append(Agreement(backbone, recipe))
        return made[-1]

    monkeypatch.setattr(objectives, "build", agreement)
    yield made


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return open_dataset(draw_folder(tmp_path / "photos", kinds=3, each=12), labelled=False)


@pytest.fixture
def recipe(data: Dataset) -> Recipe:
    start = named("masked-patches", 30, (32, 32))
    model = replace(start.model, width=32, depth=2, heads=2, mlp_width=64)
    where = replace(start.data, source=data.source, batch=8, workers=0)
    return replace(
        start,
        model=model,
        data=where,
        length=steps(6),
        schedule=replace(start.schedule, warmup=steps(1)),
        evaluate_every=steps(3),
        ema=0.5,
        save_seconds=0.0,
        precision="fp32",
    )


def test_it_is_trained_scored_and_its_backbone_kept(
    recipe: Recipe, data: Dataset, tmp_path: Path, built: list[Agreement]
) -> None:
    run = loop.train(recipe, data, None, tmp_path / "run", display=Display(quiet=True))
    (objective,) = built
    assert objective.updates == list(range(6))
    assert isinstance(run.evaluation, PatchScore)
    kept = load_file(tmp_path / "run" / "best" / "model.safetensors")
    assert kept.keys() == objective.backbone.state_dict().keys()
    saved = state.load(tmp_path / "run" / "state")
    assert saved is not None
    names = saved[0].keys()
    assert {"model/teacher.patches.weight", "model/predictor.weight"} <= names
    assert not any(name.startswith(("average/teacher", "optimizer/teacher")) for name in names)
    moved = objective.teacher.state_dict()
    assert any(not torch.equal(moved[n], x) for n, x in objective.backbone.state_dict().items())


def test_its_teacher_is_resumed_to_the_bit(
    recipe: Recipe, data: Dataset, tmp_path: Path, built: list[Agreement]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for run in (whole, cut):
        loop.train(recipe, data, None, run, display=Display(quiet=True))
    newest = max((cut / "state").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    newest.unlink()
    for part in ("best", "last"):
        shutil.rmtree(cut / part)
    loop.resume(data, None, cut, display=Display(quiet=True))
    first, again = built[0], built[-1]
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    for part in ("best", "last"):
        one = load_file(whole / part / "model.safetensors")
        two = load_file(cut / part / "model.safetensors")
        assert all(one[name].equal(two[name]) for name in one)
