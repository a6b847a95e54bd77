import ast
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from planned import choose, origins, resolve
from vitral import catalog, recipes
from vitral.data.datasets import open_dataset
from vitral.data.loader import Batch, steps_per_epoch
from vitral.errors import SpecError, UsageError
from vitral.model import StepSamples, ViT, build
from vitral.planning.choose import Facts
from vitral.planning.plan import plan
from vitral.planning.request import Request
from vitral.recipes import bit_i1k, finetune, scratch_large, scratch_small
from vitral.specs import Dropouts, ImageSpec, counts
from vitral.training import objectives, optimizer, schedule
from vitral.training.objectives import StepPosition, classification, distillation
from vitral.training.recipe import MaskedPatches, Recipe, Tune, epochs, steps
from vitral.weights import artifact

FOLDER = Path(recipes.__file__).parent
DOCUMENT = FOLDER.parents[2] / "docs" / "recipes.md"
MOST_LINES = 45
PHOTOS = (375, 500)
RULES = {
    "lora",
    "finetune-small",
    "masked-patches",
    "scratch-small",
    "scratch-large",
    "finetune",
    "bit-i1k",
    "bit-hyperrule",
}


def facts(count: int, classes: int = 10, **changes: Any) -> Facts:
    return Facts(count=count, classes=classes, size=PHOTOS, **changes)


def test_the_default_depends_on_the_source() -> None:
    assert resolve(Request(data="digits")) == recipes.named("digits")
    assert resolve(Request(data="shapes")) == recipes.named("shapes")
    expected = recipes.named("scratch-small")
    assert resolve(Request(data="x")) == replace(expected, data=replace(expected.data, source="x"))


def test_what_is_asked_is_what_changes() -> None:
    asked = Request(
        data="photos", model="S/16", size=(64, 96), epochs=4, batch=8, seed=3, changes=["ema=0.5"]
    )
    recipe = resolve(asked)
    assert recipe.model == catalog.model("S/16", size=(64, 96))
    assert recipe.images.size == (64, 96)
    assert recipe.length == epochs(4)
    assert (recipe.data.source, recipe.data.batch, recipe.seed, recipe.ema) == ("photos", 8, 3, 0.5)


def test_the_warm_up_keeps_its_share_of_a_shorter_run() -> None:
    base, short = recipes.named("scratch-small"), resolve(Request(data="x", epochs=1))
    share = base.schedule.warmup.amount / base.length.amount
    assert short.schedule.warmup.amount == pytest.approx(share)
    changes = ["schedule.warmup=7 steps"]
    kept = resolve(Request(data="x", recipe="s16-i1k-90", epochs=1, changes=changes))
    assert kept.schedule.warmup == steps(7)


def test_a_cooldown_in_epochs_keeps_its_share_too(tmp_path: Path) -> None:
    base = recipes.named("scratch-small")
    settings = replace(base.schedule, kind="rsqrt", cooldown=epochs(10))
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(replace(base, schedule=settings).to_dict()))
    short = resolve(Request(data="x", recipe=str(file), epochs=5))
    assert (short.schedule.warmup, short.schedule.cooldown) == (epochs(0.5), epochs(1))


def test_size_alone_changes_model_and_images() -> None:
    recipe = resolve(Request(data="x", size=64))
    assert recipe.model.size == recipe.images.size == (64, 64)
    assert resolve(Request(data="x", size=100)).model.grid == (7, 7), "a stem rounds up"
    with pytest.raises(SpecError, match="patch"):
        resolve(Request(data="x", size=100, model="Ti/16"))


def test_unknown_recipe() -> None:
    with pytest.raises(UsageError, match="did you mean 'digits'"):
        recipes.named("digit")


@pytest.mark.parametrize("name", recipes.names())
def test_one_run_is_one_screen(name: str) -> None:
    text = (FOLDER / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    told = ast.get_docstring(ast.parse(text)) or ""
    assert "vitral train" in told, "the docstring says how to run it"
    if name not in ("digits", "shapes"):
        assert "Result: " in told
        assert re.search(r"arXiv:\d{4}\.\d{5}|pytorch/vision", told)


def test_the_document_knows_every_recipe_with_its_source_and_result() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    table = {row[0].strip("`"): row[1:] for row in rows if len(row) == 4 and row[0][:1] == "`"}
    assert sorted(table) == recipes.names()
    for name, (what, source, result) in table.items():
        told = (FOLDER / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
        assert what
        assert "own" in source or re.search(r"arXiv:\d{4}\.\d{5}|pytorch/vision", source)
        for paper in re.findall(r"arXiv:\S+?(?=[,)\s]|$)", source):
            assert paper in told, f"{name}: {paper}"
        figures = re.findall(r"\b\d\d\.\d+", result)
        assert figures or result in ("README", "none published") or "goal" in result
        for figure in figures if "goal" not in result else ():
            assert figure in told, f"{name}: {figure}"


def small(recipe: Recipe) -> Recipe:
    """The same run with a tiny network of the same style."""
    patch = tuple(recipe.model.patch)
    if recipe.model.is_resnet and recipe.model.resnet is not None:
        resnet = replace(recipe.model.resnet, blocks=(1,), width=32)
        model = replace(recipe.model, resnet=resnet, width=resnet.outputs, size=(32, 32), classes=5)
    else:
        stride = recipe.model.resnet.stride if recipe.model.resnet else 1
        size = (2 * patch[0] * stride, 2 * patch[1] * stride)
        hidden = 8 if recipe.model.representation else 0
        tiny = {"width": 16, "depth": 2, "heads": 2, "mlp_width": 32, "representation": hidden}
        model = replace(recipe.model, **tiny, size=size, classes=5 if recipe.labelled else 0)
    data = replace(recipe.data, batch=6)
    return replace(recipe, model=model, images=replace(recipe.images, size=model.size), data=data)


def losses(recipe: Recipe, count: int) -> tuple[ViT, list[float]]:
    """What the recipe's own loss, optimizer and schedule do in the steps after the warm-up."""
    torch.manual_seed(0)
    if isinstance(recipe.objective, MaskedPatches):
        return masked_patch_losses(recipe, count)
    rates = Dropouts(drop_path=recipe.noise.drop_path, dropout=recipe.noise.dropout)
    model = build(recipe.model, rates)
    assert model.head is not None
    nn.init.constant_(model.head.bias, recipe.objective.head_bias)
    model.train()
    learner = optimizer.build(model, recipe.optimizer)
    images = torch.randn(6, 3, *recipe.model.size)
    labels: Tensor = torch.arange(6) % 5
    taught = torch.randn(6, 5) if recipe.objective.teacher else None
    found = []
    for step in range(first := recipe.schedule.warmup.in_steps(100), first + count):
        rate = schedule.multiplier(recipe.schedule, step, 100_000, 100) * recipe.optimizer.lr
        for group in learner.param_groups:
            group["lr"] = rate * group["scale"]
        outputs = model.logits_per_head(images)
        if taught is None:
            loss = classification.losses(outputs, labels, recipe.objective).sum()
        else:
            loss = distillation.losses(outputs, labels, taught, recipe.objective).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        learner.step()
        learner.zero_grad()
        found.append(loss.item())
    return model, found


def masked_patch_losses(recipe: Recipe, count: int) -> tuple[ViT, list[float]]:
    model = build(recipe.model).train()
    objective = objectives.build(model, recipe)
    learner = optimizer.build(objective, recipe.optimizer)
    images = torch.randint(256, (6, 3, *recipe.model.size), dtype=torch.uint8)
    batch = Batch((images,), torch.full((6,), -1), torch.arange(6))
    position = StepPosition(seed=0, samples=StepSamples(torch.arange(6), 6))
    found = []
    for _ in range(count):
        loss = objective(batch, position).total
        loss.backward()
        learner.step()
        learner.zero_grad()
        found.append(loss.item())
    return model, found


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_a_value_and_learns(name: str) -> None:
    recipe = recipes.named(name)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build(recipe.model).parameters())
    assert parameters == counts.parameters(recipe.model)
    model, found = losses(small(recipe), 3)
    assert np.isfinite(found).all()
    assert found[0] != found[2]
    if recipe.labelled:
        assert model.head.weight.abs().max() > 0, "a head of zeros has learnt"
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def test_recipes_with_a_rule() -> None:
    assert {
        name for name in recipes.names() if recipes.named(name, 700, PHOTOS) != recipes.named(name)
    } <= RULES
    assert recipes.named("s16-i1k-90", 700, PHOTOS) == recipes.named("s16-i1k-90")


@pytest.mark.parametrize(
    "count", [20, 90, 812, 9469, 49_999, 50_000, 300_000, 1_281_167, 2_000_000]
)
@pytest.mark.parametrize("size", [(28, 28), (32, 32), (96, 96), (500, 333), (3000, 4000)])
def test_a_rule_fits_any_data(count: int, size: tuple[int, int]) -> None:
    for module in (scratch_small, scratch_large, finetune, bit_i1k):
        recipe = module.rule(count, size)
        epoch_steps = steps_per_epoch(count, recipe.data.batch)
        total = recipe.length.in_steps(epoch_steps)
        schedule.check(recipe.schedule, total, epoch_steps)
        assert recipe.schedule.warmup.in_steps(epoch_steps) <= max(1, round(total / 9))
        assert recipe.evaluate_every.amount <= recipe.length.amount / 8
        if count >= 90 and module is not scratch_large:
            assert total >= 90, (module, total)
    small_side = scratch_small.rule(count, size).model
    assert small_side.grid == (8, 8)
    assert max(small_side.size) <= max(32, *size)


def test_small_data_is_seen_longer() -> None:
    counts = (100, 812, 3000, 9469, 40_000)
    fitted = [scratch_small.rule(count, PHOTOS) for count in counts]
    lengths = [recipe.length.amount for recipe in fitted]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == 300
    assert lengths[-1] == 50
    assert [recipe.data.batch for recipe in fitted] == [8, 32, 32, 32, 32]
    views = [recipe.length.amount * count for recipe, count in zip(fitted, counts, strict=True)]
    assert views[3] == pytest.approx(500_000, rel=0.02)
    assert fitted[1].optimizer.lr == 1e-3
    assert fitted[0].optimizer.lr == pytest.approx(1e-3 * (8 / 32) ** 0.5)


@pytest.mark.parametrize("count", [90, 200, 812, 1600, 5000, 50_000])
def test_a_fine_tune_has_500_steps(count: int) -> None:
    recipe = finetune.rule(count, PHOTOS)
    epoch_steps = steps_per_epoch(count, recipe.data.batch)
    assert recipe.length.in_steps(epoch_steps) >= 500
    less = recipe.length.amount - 1
    assert less < 20 or less * epoch_steps < 500 + epoch_steps, "and no more than it needs"


@pytest.mark.parametrize(
    ("asked", "known", "name", "words"),
    [
        ({}, facts(812, 5), "scratch-small", "812 images of 5 classes and no weights"),
        ({}, facts(49_999), "scratch-small", "49,999"),
        ({}, facts(50_000), "scratch-large", "50,000"),
        ({}, facts(60_000, gpu=False), "scratch-small", "no GPU"),
        ({}, facts(2_000_001), "paper-i21k", "augmentation would hurt"),
        ({"data": "digits"}, None, "digits", "built-in"),
        ({"model": "BiT-R50x1"}, facts(812), "bit-i1k", "BiT-R50x1 is a ResNet"),
        ({"recipe": "deit"}, facts(812), "deit", "--recipe"),
        ({}, None, "scratch-small", "no weights"),
    ],
)
def test_the_data_chooses(
    asked: dict[str, Any], known: Facts | None, name: str, words: str
) -> None:
    chosen, reason = choose(Request(**{"data": "x", **asked}), known)
    assert chosen == name
    assert words in reason


def test_weights_choose_too(tmp_path: Path) -> None:
    shallow = Request(data="x", start=str(saved(tmp_path / "shallow", depth=7)))
    name, reason = choose(shallow, facts(5000))
    assert (name, "7 blocks, for 5,000 images" in reason) == ("finetune-small", True)
    assert (
        choose(replace(shallow, tune=Tune("last", blocks=1)), facts(99, 10))[0] == "finetune-small"
    )
    assert choose(replace(shallow, tune=Tune("lora", rank=8)), facts(5000))[0] == "lora"
    bold, careful = recipes.named("finetune-small"), recipes.named("finetune")
    assert resolve(shallow).optimizer == bold.optimizer
    assert bold.optimizer.lr == pytest.approx(3 * careful.optimizer.lr)
    asked = Request(data="x", start=str(saved(tmp_path / "w", depth=8)))
    name, reason = choose(asked, facts(5000))
    assert (name, "probe" in reason) == ("finetune", False)
    for few in (facts(99, 10), facts(999, gpu=False)):
        name, reason = choose(asked, few)
        assert (name, "--tune probe is much quicker" in reason) == ("finetune", True)
    assert "probe" not in choose(asked, facts(999))[1]
    assert choose(replace(asked, tune=Tune("probe")), facts(5000))[0] == "probe"
    for rank in (8, 4):
        assert choose(replace(asked, tune=Tune("lora", rank=rank)), facts(5000))[0] == "lora"
    assert resolve(replace(asked, tune=Tune("lora", rank=4)), facts(5000)).tune == Tune(
        "lora", rank=4
    )
    assert choose(replace(asked, tune=Tune("last", blocks=1)), facts(5000))[0] == "finetune"
    resnet = bit(tmp_path / "bit")
    assert choose(Request(data="x", start=str(resnet)), facts(5000))[0] == "bit-hyperrule"
    recipe = resolve(Request(data="x", start=str(resnet)), facts(5000))
    assert (recipe.length, recipe.model.size) == (steps(500), (480, 480))
    assert recipe.model.is_resnet


def test_a_recipe_for_weights_says_at_what_size(tmp_path: Path) -> None:
    weights = str(saved(tmp_path / "w"))
    paper = resolve(Request(data="x", start=weights, recipe="paper-finetune"))
    assert paper.model.size == paper.images.size == (384, 384)
    assert (paper.images.fit, paper.images.mean) == ("squash", (0.1, 0.2, 0.3))
    assert paper.model.width == 32
    asked = resolve(Request(data="x", start=weights, recipe="paper-finetune", size=64))
    assert asked.images.size == (64, 64)
    for tune in (None, Tune("lora", rank=8), Tune("probe")):
        found = resolve(Request(data="x", start=weights, tune=tune))
        assert found.images.size == found.model.size == (32, 32)


def test_a_probe_needs_no_warm_up(tmp_path: Path) -> None:
    weights = str(saved(tmp_path / "w"))
    for recipe in ("probe", "finetune"):
        resolved = resolve(Request(data="x", start=weights, recipe=recipe, tune=Tune("probe")))
        schedule.check(resolved.schedule, 1, 13)
        assert resolved.tune.kind == "probe"


def test_small_pictures_get_a_finer_map_unless_somebody_chose() -> None:
    cifar = Facts(count=40_000, classes=10, size=(32, 32))
    recipe = resolve(Request(data="x"), cifar)
    assert (recipe.model.size, recipe.model.grid) == ((32, 32), (8, 8))
    assert recipe.model.name == "thin-R+Ti/4"
    larger = resolve(Request(data="x", size=128), cifar)
    assert (larger.model.size, larger.model.grid) == ((128, 128), (8, 8))
    assert larger.model.name == "thin-R+Ti/16"
    named = resolve(Request(data="x", model="S/16"), cifar)
    assert named.model == catalog.model("S/16", size=128)


def test_every_value_has_an_origin(tmp_path: Path) -> None:
    asked = Request(
        data="photos",
        model="Ti/16",
        epochs=4,
        seed=3,
        size=64,
        changes=["ema=0.5", "noise.dropout=0"],
    )
    found = origins(asked, facts(812))
    flat = _fields(resolve(asked, facts(812)).to_dict())
    assert set(found) == set(flat)
    assert found["optimizer.weight_decay"] == "default"  # the recipe says what is the default
    assert found["objective.label_smoothing"] == "recipe scratch-small"
    assert found["evaluate_every"] == "recipe scratch-small for 812 images"
    assert found["model.pool"] == found["model.width"] == "--model Ti/16"
    plain = origins(Request(data="x"))
    assert plain["model.width"] == plain["model.size"] == "recipe scratch-small"
    for name in ("deit", "digits", "shapes"):
        assert origins(Request(data="x", recipe=name))["images.size"] == f"recipe {name}"
    assert found["model.size"] == found["images.size"] == "--size"
    assert found["length"] == found["schedule.warmup"] == "--epochs"
    assert (found["seed"], found["ema"], found["data.source"]) == ("--seed", "--set", "DATA")
    assert found["noise.dropout"] == "--set"  # asked for, though it was 0 before
    weights = str(saved(tmp_path / "w", depth=8))
    found = origins(Request(data="x", start=weights, tune=Tune("last", blocks=1), batch=4))
    assert (found["start"], found["model.width"], found["images.mean"]) == (
        "--from",
        "the weights",
        "the weights",
    )
    assert (found["tune"], found["data.batch"]) == ("--tune", "--batch")
    assert found["optimizer.layer_decay"] == "recipe finetune"


def _fields(values: dict[str, Any], above: str = "") -> list[str]:
    names = []
    for name, value in values.items():
        inner = isinstance(value, dict)
        names += _fields(value, f"{above}{name}.") if inner else [f"{above}{name}"]
    return names


def test_a_file_repeats_a_run(tmp_path: Path) -> None:
    first = resolve(Request(data="digits", epochs=3, seed=5, changes=["model.depth=2"]))
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"recipe": first.to_dict(), "fingerprint": "f"}))
    assert resolve(Request(recipe=str(file)), facts(812)) == first
    assert resolve(Request(recipe=str(tmp_path))) == first
    assert resolve(Request(data="digits", recipe=str(file), seed=6)) == replace(first, seed=6)
    assert origins(Request(recipe=str(file)))["model.depth"] == f"recipe {file}"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("nothing", "cannot be read"),
        ("[1]", "cannot be read"),
        ('{"recipe": 5}', "cannot be read"),
        ('{"model": {"name": "x"}, "lenght": 1}', "did you mean 'length'"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(content)
    with pytest.raises(UsageError, match=words):
        resolve(Request(data="x", recipe=str(file)))
    with pytest.raises(UsageError, match="there is no"):
        resolve(Request(data="x", recipe=str(tmp_path / "other.json")))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"recipe": "scratch-smal"}, "did you mean 'scratch-small'"),
        ({"changes": ["optimiser.lr=1"]}, "did you mean 'optimizer'"),
        ({"changes": ["noise.dropuot=1"]}, "did you mean 'dropout'"),
        ({"changes": ["data.source=y"]}, "the images are named by themselves"),
        ({"recipe": "finetune"}, "finetune starts from weights: --from WEIGHTS"),
        ({"recipe": "probe"}, "probe starts from weights: --from WEIGHTS"),
        ({"recipe": "paper-finetune-cifar"}, "starts from weights: --from WEIGHTS"),
        ({"recipe": "bit-hyperrule"}, "starts from weights: --from WEIGHTS"),
        ({"recipe": "deit-distilled"}, "--set objective.teacher=WEIGHTS"),
        ({"tune": Tune("last", blocks=2)}, "--tune last:2 keeps most weights"),
        ({"changes": ["tune=nearly"]}, "full, probe, last:N"),
        ({"data": ""}, "Say what to train on"),
    ],
)
def test_bad_requests_in_a_sentence(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        resolve(Request(**{"data": "x", **asked}))
    assert "\n" not in str(caught.value)


def test_a_teacher_can_be_named() -> None:
    asked = Request(data="x", recipe="deit-distilled", changes=["objective.teacher=runs/b"])
    assert resolve(asked).objective.teacher == "runs/b"


def test_a_warm_up_longer_than_the_run() -> None:
    recipe = resolve(Request(data="x", recipe="s16-i1k-90", epochs=1), facts(50_000))
    with pytest.raises(SpecError, match="longer than the run") as caught:
        schedule.check(recipe.schedule, recipe.length.in_steps(49), 49)
    assert "schedule.warmup=" in str(caught.value)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for number in range(10):
            picture = random.integers(0, 255, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(picture).save(tmp_path / "photos" / kind / f"{number}.png")
    return tmp_path / "photos"


def test_a_plan_opens_the_data_once_and_says_why(photos: Path) -> None:
    planned = plan(Request(data=str(photos), seed=4))
    data = open_dataset(photos)
    assert planned.data.fingerprint == data.fingerprint
    assert Facts.of(planned.data) == Facts.of(data)
    assert Facts.of(data).size == (40, 60)
    assert (planned.name, planned.recipe.seed) == ("scratch-small", 4)
    assert planned.recipe.model.size == (32, 32)
    assert planned.decisions[0].topic == "recipe"
    assert planned.decisions[0].sentence.startswith("scratch-small: 16 images of 2 classes and no")
    assert planned.origins["seed"] == "--seed"
    assert planned.recipe == resolve(Request(data=str(photos), seed=4), Facts.of(data))


def test_a_picture_that_cannot_be_read_decides_nothing(photos: Path) -> None:
    data = open_dataset(photos)
    for row in range(len(data.train)):
        (photos / data.train.key(row)).write_bytes(b"no picture")
    assert Facts.of(data) == Facts(count=16, classes=2, size=None, gpu=Facts.of(data).gpu)


def bit(folder: Path) -> Path:
    spec = catalog.model("BiT-R50x1", size=64, classes=3)
    assert spec.resnet is not None
    resnet = replace(spec.resnet, blocks=(1,), width=32)
    spec = replace(spec, resnet=resnet, width=resnet.outputs)
    card = artifact.Card(model=spec, images=ImageSpec(size=(64, 64)), classes=("a", "b", "c"))
    artifact.save(folder, build(spec).state_dict(), card)
    return folder


def saved(folder: Path, **changes: Any) -> Path:
    torch.manual_seed(0)
    spec = catalog.model("mu/16", size=32, classes=3, **changes)
    images = ImageSpec(size=(32, 32), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    tensors = build(spec).state_dict()
    artifact.save(
        folder, tensors, artifact.Card(model=spec, images=images, classes=("a", "b", "c"))
    )
    return folder


def test_weights_bring_their_network_and_preprocessing(tmp_path: Path) -> None:
    weights = saved(tmp_path / "w", representation=8, depth=8)
    recipe = resolve(Request(data="photos", start=str(weights)))
    assert recipe.start == str(weights)
    assert (recipe.model.width, recipe.model.representation) == (32, 0)
    assert recipe.images.mean == (0.1, 0.2, 0.3)
    assert recipe.optimizer == recipes.named("finetune").optimizer
    larger = resolve(Request(data="photos", start=str(weights), size=(64, 32)))
    assert larger.model.size == larger.images.size == (64, 32)
    finer = resolve(Request(data="p", start=str(weights), changes=["model.patch=[8, 8]"]))
    assert finer.model.patch == (8, 8)


def test_weights_and_model_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave --model out"):
        resolve(Request(data="photos", start=str(saved(tmp_path / "w")), model="S/16"))
    with pytest.raises(UsageError, match="--from WEIGHTS"):
        resolve(Request(data="photos", recipe="finetune"))
