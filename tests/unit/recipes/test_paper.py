"""The recipes against the published tables, whose numbers are written out here."""

from dataclasses import replace

import pytest

from planned import resolve
from vitral import catalog, recipes
from vitral.planning.choose import Facts
from vitral.planning.request import Request
from vitral.recipes import bit_hyperrule, bit_i1k
from vitral.specs import counts
from vitral.training import schedule
from vitral.training.recipe import Recipe, epochs, steps

IMAGENET = 1_281_167
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUTHORS = ("paper-i1k", "paper-i21k", "s16-i1k-90", "bit-i1k")
AUGREG = ("augreg-light", "augreg-medium", "augreg-strong")


def rate(recipe: Recipe, step: int, count: int) -> float:
    """The learning rate of a step, on that many training images."""
    epoch_steps = -(-count // recipe.data.batch)
    total = recipe.length.in_steps(epoch_steps)
    share = schedule.multiplier(recipe.schedule, step, total, epoch_steps)
    return recipe.optimizer.lr * share


@pytest.mark.parametrize(
    ("name", "long", "lr", "kind", "decay", "dropout", "clip"),
    [  # Table 3 of arXiv:2010.11929: B/16, beta 0.9 and 0.999, batch 4096, 10k steps of warm-up
        ("paper-i1k", 300, 3e-3, "cosine", 0.3, 0.1, 1.0),
        ("paper-i21k", 90, 1e-3, "linear", 0.03, 0.1, 0.0),
    ],
)
def test_table_3(
    name: str, long: int, lr: float, kind: str, decay: float, dropout: float, clip: float
) -> None:
    recipe = recipes.named(name)
    optimizer = recipe.optimizer
    assert (optimizer.kind, optimizer.beta1, optimizer.beta2) == ("adamw", 0.9, 0.999)
    assert (optimizer.lr, optimizer.weight_decay, optimizer.clip) == (lr, decay, clip)
    assert (recipe.data.batch, recipe.schedule.warmup, recipe.schedule.kind) == (
        4096,
        steps(10_000),
        kind,
    )
    assert (recipe.length, recipe.noise.dropout) == (epochs(long), dropout)
    assert recipe.schedule.start == recipe.schedule.end == recipe.noise.drop_path == 0
    model = recipe.model
    assert (model.size, model.width, model.depth, model.patch) == ((224, 224), 768, 12, (16, 16))
    assert (model.pool, model.positions, model.representation) == ("cls", "learned", 768)


def test_table_3_other_rows_by_set() -> None:
    large = resolve(
        Request(
            data="x",
            recipe="paper-i21k",
            model="L/16",
            epochs=30,
            changes=["model.representation=1024"],
        )
    )
    assert (large.length, large.model.representation) == (epochs(30), 1024)
    assert large.schedule.warmup == steps(10_000)
    changes = ["optimizer.lr=8e-4", "optimizer.weight_decay=0.1", "noise.dropout=0"]
    jft = resolve(Request(data="x", recipe="paper-i21k", epochs=7, changes=changes))
    assert (jft.optimizer.lr, jft.optimizer.weight_decay, jft.noise.dropout) == (8e-4, 0.1, 0)


@pytest.mark.parametrize(
    ("name", "long", "rates", "warmup"),
    [  # Table 4; the warm-up is of the authors' code
        ("paper-finetune", 20_000, (0.003, 0.01, 0.03, 0.06), 500),
        ("paper-finetune-cifar", 10_000, (0.001, 0.003, 0.01, 0.03), 500),
        ("paper-finetune-pets", 500, (0.001, 0.003, 0.01, 0.03), 100),
    ],
)
def test_table_4(name: str, long: int, rates: tuple[float, ...], warmup: int) -> None:
    recipe = recipes.named(name)
    optimizer = recipe.optimizer
    assert (optimizer.kind, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.9, 0)
    assert (optimizer.clip, recipe.data.batch) == (1.0, 512)
    assert optimizer.lr in rates
    assert optimizer.layer_decay == 1
    assert (recipe.length, recipe.schedule.warmup) == (steps(long), steps(warmup))
    assert recipe.schedule.kind == "cosine"
    assert recipe.images.size == (384, 384)
    assert recipe.images.fit == "squash"  # the test view is the whole image at 384 x 384
    assert rate(recipe, long - 1, 50_000) < 1e-4 * optimizer.lr


@pytest.mark.parametrize("name", [*AUTHORS, *AUGREG, "paper-finetune"])
def test_the_authors_images(name: str) -> None:
    recipe = recipes.named(name)
    assert recipe.augment.crop_scale == (0.05, 1.0)
    assert recipe.augment.crop_ratio == (0.75, pytest.approx(1.33, abs=0.005))
    assert (recipe.augment.flavour, recipe.augment.flip) == ("big_vision", 0.5)
    assert recipe.images.mean == recipe.images.std == (0.5, 0.5, 0.5)  # x / 127.5 - 1
    if recipe.start is None:
        assert round(recipe.images.size[0] / recipe.images.crop) == 256


@pytest.mark.parametrize(
    ("name", "model", "randaugment", "mixup"),
    [  # arXiv:2106.10270: light1, medium2, strong2
        ("augreg-light", "Ti/16", (2, 0), 0.0),
        ("augreg-medium", "S/16", (2, 15), 0.5),
        ("augreg-strong", "B/16", (2, 20), 0.8),
    ],
)
def test_augreg(name: str, model: str, randaugment: tuple[int, int], mixup: float) -> None:
    recipe = recipes.named(name)
    assert recipe.model == catalog.model(model)
    assert (recipe.augment.randaugment, recipe.augment.mixup) == (randaugment, mixup)
    assert recipe.augment.cutmix == 0
    assert (recipe.optimizer.lr, recipe.optimizer.clip, recipe.data.batch) == (1e-3, 1.0, 4096)
    assert recipe.optimizer.weight_decay in (0.1, 0.03)
    assert (recipe.noise.dropout, recipe.noise.drop_path) in ((0, 0), (0.1, 0.1))
    assert recipe.noise.drop_path_rule == "linear"
    assert (recipe.schedule.kind, recipe.schedule.warmup) == ("cosine", steps(10_000))
    assert (recipe.objective.loss, recipe.objective.head_bias) == ("sigmoid", -6.9)
    assert recipe.length == epochs(300)


def test_better_plain() -> None:
    """arXiv:2205.01580; 112,603 steps at 90 epochs of all training images."""
    recipe = recipes.named("s16-i1k-90")
    model = recipe.model
    assert (model.pool, model.positions, model.class_token) == ("mean", "sincos2d", False)
    assert model.representation == 384
    assert counts.parameters(model) == 22_122_472
    assert counts.parameters(replace(model, representation=0)) == 21_974_632
    assert recipe.data.batch == 1024
    assert recipe.augment.randaugment == (2, 10)
    assert recipe.augment.mixup == 0.2
    assert recipe.augment.cutmix == recipe.ema == recipe.noise.dropout == 0
    assert recipe.noise.drop_path == recipe.objective.label_smoothing == 0
    assert recipe.objective.loss == "softmax"
    # big_vision's decay of 1e-4 does not depend on the rate
    assert recipe.optimizer.lr * recipe.optimizer.weight_decay == pytest.approx(1e-4)
    assert recipe.optimizer.clip == 1.0
    assert (recipe.schedule.kind, recipe.schedule.warmup) == ("cosine", steps(10_000))
    views = recipe.length.amount * IMAGENET
    assert views / recipe.data.batch == pytest.approx(112_603, rel=1e-4)
    longest = resolve(Request(data="x", recipe="s16-i1k-90", epochs=300))
    assert longest == replace(recipe, length=epochs(300), data=longest.data)


def test_deit() -> None:
    """arXiv:2012.12877, Table 9, and the authors' code."""
    recipe = recipes.named("deit")
    assert recipe.optimizer.lr == pytest.approx(5e-4 * recipe.data.batch / 512)
    assert (recipe.optimizer.kind, recipe.optimizer.weight_decay) == ("adamw", 0.05)
    assert recipe.optimizer.clip == 0
    assert (recipe.length, recipe.schedule.warmup) == (epochs(300), epochs(5))
    assert recipe.optimizer.lr * recipe.schedule.start == pytest.approx(1e-6)
    assert rate(recipe, 0, IMAGENET) < 3e-6
    assert rate(recipe, 300 * -(-IMAGENET // 1024) - 1, IMAGENET) == pytest.approx(1e-5, rel=1e-3)
    augment = recipe.augment
    assert (augment.flavour, augment.randaugment) == ("timm", (2, 9))
    assert (augment.mixup, augment.cutmix, augment.erase, augment.repeats) == (0.8, 1.0, 0.25, 3)
    assert (recipe.objective.label_smoothing, recipe.noise.drop_path) == (0.1, 0.1)
    assert recipe.ema == 0.99996
    assert recipe.model == catalog.model("deit_small_patch16_224")
    assert (recipe.images.mean, recipe.images.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert (recipe.images.crop, recipe.images.interpolation) == (0.875, "bicubic")


def test_deit_distilled_differs_by_its_teacher_alone() -> None:
    plain, distilled = recipes.named("deit"), recipes.named("deit-distilled")
    assert distilled.model.distillation_token
    assert (distilled.objective.distill, distilled.objective.distill_share) == ("hard", 0.5)
    assert distilled.objective.label_smoothing == 0.1
    assert replace(distilled, model=plain.model, objective=plain.objective) == plain


@pytest.mark.parametrize(
    ("name", "width", "size", "lr", "drop_path"),
    [("deit3", 384, 224, 4e-3, 0.05), ("deit3-b", 768, 192, 3e-3, 0.2)],  # arXiv:2204.07118
)
def test_deit3(name: str, width: int, size: int, lr: float, drop_path: float) -> None:
    recipe = recipes.named(name)
    assert (recipe.model.width, recipe.images.size) == (width, (size, size))
    assert recipe.model.layer_scale == 1e-4
    assert not recipe.model.prefix_positions
    assert (recipe.optimizer.kind, recipe.optimizer.lr) == ("lamb", lr)
    assert (recipe.optimizer.weight_decay, recipe.data.batch) == (0.05, 2048)
    assert (recipe.objective.loss, recipe.objective.label_smoothing) == ("bce", 0)
    assert (recipe.noise.drop_path, recipe.noise.drop_path_rule) == (drop_path, "constant")
    augment = recipe.augment
    assert augment.three
    assert (augment.jitter, augment.mixup, augment.cutmix, augment.repeats) == (0.3, 0.8, 1.0, 3)
    assert augment.randaugment is None
    assert augment.erase == 0
    assert recipe.length == epochs(800)
    assert lr * recipe.schedule.start == pytest.approx(1e-6)
    assert lr * recipe.schedule.end == pytest.approx(1e-5)


def test_torchvision() -> None:
    """The command beside its weights: pytorch/vision, references/classification, vit_b_16.

    --epochs 300 --batch-size 512 on 8 GPUs --opt adamw --lr 0.003 --wd 0.3 --lr-scheduler
    cosineannealinglr --lr-warmup-method linear --lr-warmup-epochs 30 --lr-warmup-decay 0.033
    --label-smoothing 0.11 --mixup-alpha 0.2 --auto-augment ra --clip-grad-norm 1 --ra-sampler
    --cutmix-alpha 1.0 --model-ema; test images 256, cut to 224.
    """
    recipe = recipes.named("torchvision-b16")
    assert recipe.model == catalog.model("vit_b_16")
    assert (recipe.length, recipe.data.batch) == (epochs(300), 8 * 512)
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay) == (0.003, 0.3)
    assert (recipe.optimizer.kind, recipe.optimizer.clip) == ("adamw", 1)
    assert (recipe.schedule.kind, recipe.schedule.warmup) == ("cosine", epochs(30))
    assert rate(recipe, 0, IMAGENET) == pytest.approx(0.003 * 0.033, rel=0.01)
    assert recipe.objective.label_smoothing == 0.11
    augment = recipe.augment
    assert (augment.flavour, augment.randaugment) == ("torchvision", (2, 9))
    assert (augment.mixup, augment.cutmix, augment.repeats) == (0.2, 1.0, 3)
    per_32_steps = 1 - (1 - 0.99998) * 8 * 512 * 32 / 300
    assert recipe.ema**32 == pytest.approx(per_32_steps, abs=2e-4)
    assert (recipe.images.crop, recipe.images.interpolation) == (224 / 256, "bilinear")
    assert (recipe.images.mean, recipe.images.std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_bit_upstream() -> None:
    """big_vision's bit_i1k: rate and decay in proportion to the batch, each on its own."""
    recipe = recipes.named("bit-i1k")
    optimizer, batch = recipe.optimizer, recipe.data.batch
    assert (optimizer.kind, optimizer.momentum, optimizer.clip) == ("sgd", 0.9, 1.0)
    assert optimizer.lr == pytest.approx(0.1 * batch / 256)
    assert optimizer.lr * optimizer.weight_decay == pytest.approx(1e-4 * batch / 256)
    assert (recipe.length, recipe.schedule.warmup) == (epochs(90), steps(1000))
    assert bit_i1k.rule(IMAGENET, (375, 500)) == recipe
    larger = 0.48  # of the docstring's line for ImageNet-21k
    assert larger == pytest.approx(0.03 * batch / 256)
    assert larger * optimizer.weight_decay == pytest.approx(3e-5 * batch / 256)


@pytest.mark.parametrize(
    ("count", "size", "long", "warmup", "mixup", "side"),
    [  # arXiv:1912.11370, section 3.3
        (19_999, (375, 500), 500, 100, 0.0, 480),
        (20_000, (96, 96), 10_000, 500, 0.1, 480),
        (50_000, (32, 32), 10_000, 500, 0.1, 128),
        (499_999, (95, 96), 10_000, 500, 0.1, 128),
        (500_000, (375, 500), 20_000, 500, 0.1, 480),
    ],
)
def test_the_hyperrule(
    count: int, size: tuple[int, int], long: int, warmup: int, mixup: float, side: int
) -> None:
    recipe = bit_hyperrule.rule(count, size)
    optimizer = recipe.optimizer
    assert (optimizer.kind, optimizer.momentum) == ("sgd", 0.9)
    assert (optimizer.lr, optimizer.weight_decay, recipe.data.batch) == (0.003, 0, 512)
    assert (recipe.length, recipe.schedule.warmup) == (steps(long), steps(warmup))
    assert recipe.augment.mixup == mixup
    assert recipe.images.size == (side, side)
    resized = {128: 160, 480: 512}[side]
    assert recipe.augment.crop_scale[0] == pytest.approx((side / resized) ** 2)
    between = (0.3, 0.5, 0.7, 0.9) if long == 500 else (0.2, 0.4, 0.7, 0.95)
    rates = [rate(recipe, int(part * long), count) for part in between]
    assert rates == pytest.approx([0.003, 3e-4, 3e-5, 3e-6])


def test_scratch_large_is_better_plain_on_imagenet() -> None:
    facts = Facts(count=IMAGENET, classes=1000, size=(375, 500))
    plain = recipes.named("s16-i1k-90")
    assert resolve(Request(data="x"), facts) == replace(plain, data=replace(plain.data, source="x"))


def test_fine_tuning_as_the_issue_wants_it() -> None:
    recipe = recipes.named("finetune")
    assert recipe.optimizer.layer_decay == 0.75
    assert recipe.noise.drop_path > 0
    assert recipe.ema > 0
    probe = recipes.named("probe")
    assert (probe.tune.kind, probe.length, probe.augment.crop) == ("probe", epochs(1), "none")
    assert probe.augment.flip == 0
