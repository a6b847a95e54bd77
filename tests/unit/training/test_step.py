"""The gradient of a step is that of its images, however they come."""

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from contexts import context
from drawn import draw_folder
from planned import resolve
from vitral.data.loader import Batch
from vitral.planning.plan import open_data
from vitral.planning.request import Request
from vitral.training import run_folder
from vitral.training.display import Display
from vitral.training.session import Session, begin_run
from vitral.training.step import Diverged, StepResult, read, step, steps_left

CHANGES = [
    "data.workers=0",
    "noise.drop_path=0.3",
    "noise.patch_dropout=0.25",
    "augment.mixup=0.4",
    "augment.cutmix=1",
    "optimizer.clip=0",
    "schedule.warmup=0 epochs",
    "precision=fp32",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("data") / "photos", kinds=3, each=12)


def begin(photos: Path, out: Path, *changes: str) -> Session:
    asked = Request(data=str(photos), model="mu/8", size=32, batch=12, changes=[*CHANGES, *changes])
    recipe = resolve(asked)
    data = open_data(recipe.data, recipe.images.size)
    recipe = run_folder.with_data(recipe, data)
    torch.manual_seed(0)
    session = begin_run(context(recipe, data, out, Display(quiet=True)))
    torch.nn.init.normal_(session.backbone.get_parameter("head.weight"))
    return session


def parts(session: Session) -> list[Batch]:
    with contextlib.closing(steps_left(session)) as steps:
        return next(steps)


def learn(session: Session, batches: list[Batch]) -> StepResult:
    return read(session, step(session, batches))


def gradients(session: Session) -> dict[str, torch.Tensor]:
    """Of one step; nothing moves."""
    kept: dict[str, torch.Tensor] = {}

    class Keep(torch.optim.SGD):
        def step(self, closure: None = None) -> None:
            for name, parameter in session.backbone.named_parameters():
                kept[name] = parameter.grad.clone()

    session.optimizer = Keep(session.backbone.parameters(), lr=1)
    session.optimizer.param_groups[0]["scale"] = 1.0
    step(session, parts(session))
    return kept


@pytest.mark.parametrize("loss", ["softmax", "sigmoid", "bce"])
@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_accumulation_gives_the_gradient_of_the_large_batch(
    photos: Path, tmp_path: Path, loss: str, count: int
) -> None:
    changes = [f"objective.loss={loss}", "objective.label_smoothing=0"]
    whole = gradients(begin(photos, tmp_path, *changes))
    cut = gradients(begin(photos, tmp_path, *changes, f"accumulate={count}"))
    assert set(whole) == set(cut)
    for name, gradient in whole.items():
        tolerance = 2e-6 * float(gradient.abs().max())
        assert torch.allclose(cut[name], gradient, atol=tolerance + 1e-9), name
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 1e-3


def test_dropout_draws_other_numbers_in_each_part(photos: Path, tmp_path: Path) -> None:
    """Two equal parts with dropout must not repeat each other."""
    session = begin(photos, tmp_path, "noise.dropout=0.5", "accumulate=2", "augment.mixup=0")
    seen = []
    session.backbone.blocks[0].mlp.fc2.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0] == 0)
    )
    step(session, parts(session))
    assert not torch.equal(seen[0], seen[1])


def test_a_step_without_a_readable_image_moves_nothing(photos: Path, tmp_path: Path) -> None:
    session = begin(photos, tmp_path)
    before = {name: p.detach().clone() for name, p in session.backbone.named_parameters()}
    batch = parts(session)[0]
    empty = replace(batch, views=(batch.images[:0],), labels=batch.labels[:0])
    learnt = learn(session, [empty])
    assert learnt.images == 0
    assert all(torch.equal(p, before[name]) for name, p in session.backbone.named_parameters())


def test_unreadable_images_count_in_no_mean(photos: Path, tmp_path: Path) -> None:
    """A part that lost images weighs less: the mean is over what was read."""
    session = begin(photos, tmp_path, "accumulate=2", "augment.mixup=0", "augment.cutmix=0")
    noise = replace(session.run.recipe.noise, drop_path=0.0)
    session.run = replace(session.run, recipe=replace(session.run.recipe, noise=noise))
    for block in session.backbone.blocks:
        block.drop_path = 0.0
    session.backbone.dropouts = replace(session.backbone.dropouts, patch_dropout=0.0)
    first, second = parts(session)
    lost = replace(second, views=(second.images[:2],), labels=second.labels[:2])
    learnt = learn(session, [first, lost])
    assert learnt.images == 8
    fresh = begin(photos, tmp_path, "augment.mixup=0", "augment.cutmix=0", "noise.drop_path=0")
    fresh.backbone.dropouts = replace(fresh.backbone.dropouts, patch_dropout=0.0)
    together = replace(
        first,
        views=(torch.cat([first.images, lost.images]),),
        labels=torch.cat([first.labels, lost.labels]),
    )
    assert learn(fresh, [together]).loss == pytest.approx(learnt.loss, rel=1e-6)


def test_accuracy_of_training_is_known_where_labels_are_one(photos: Path, tmp_path: Path) -> None:
    session = begin(photos, tmp_path, "augment.mixup=0", "augment.cutmix=0")
    learnt = learn(session, parts(session))
    assert 0 <= learnt.measures["accuracy"] <= learnt.images == 12
    mixed = begin(photos, tmp_path)
    assert learn(mixed, parts(mixed)).measures == {}


@pytest.mark.parametrize("where", ["weight", "image"])
def test_a_step_that_is_not_finite_names_what_it_met_and_applies_nothing(
    photos: Path, tmp_path: Path, where: str
) -> None:
    session = begin(photos, tmp_path)
    if where == "weight":
        with torch.no_grad():
            session.backbone.get_parameter("blocks.0.mlp.fc1.weight")[0, 0] = float("nan")
    else:
        spec = session.run.recipe.images
        session.objective.images = replace(spec, mean=(1e38, 0.0, 0.0), std=(0.1, 1.0, 1.0))
    before = {name: p.detach().clone() for name, p in session.backbone.named_parameters()}
    batch = parts(session)
    with pytest.raises(Diverged, match=r"Step 0 is not finite.*first bad tensor: (\w+)") as caught:
        learn(session, batch)
    assert session.run.data.train.key(int(batch[0].indices[0])) in str(caught.value)
    if where == "weight":
        assert "weight 'blocks.0.mlp.fc1.weight'" in str(caught.value)
    for name, parameter in session.backbone.named_parameters():
        assert torch.equal(parameter.nan_to_num(), before[name].nan_to_num())
        assert parameter.grad is None
