import json
from dataclasses import replace

import pytest

from vitral import catalog, recipes
from vitral.errors import SpecError
from vitral.specs import Dropouts, ImageSpec
from vitral.training.recipe import (
    Classification,
    Optimizer,
    Recipe,
    Schedule,
    Tune,
    epochs,
    override,
    steps,
)


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(model=catalog.model("mu/16", size=32, classes=3), images=ImageSpec(size=(32, 32)))


def test_a_recipe_survives_json(recipe: Recipe) -> None:
    changed = replace(
        recipe,
        optimizer=Optimizer(kind="sgd", momentum=0.8),
        schedule=Schedule(kind="rsqrt", warmup=steps(5), cooldown=epochs(1.5)),
        objective=Classification(loss="bce", teacher="runs/large", distill="soft"),
        noise=Dropouts(drop_path=0.2, drop_path_rule="constant"),
        tune=Tune("lora", rank=4),
        patience=3,
        accumulate=2,
        compile=True,
        ema=0.99,
        seed=3,
    )
    assert Recipe.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed


def test_override(recipe: Recipe) -> None:
    changed = override(
        recipe, ["optimizer.lr=3e-4", "length=7 steps", "precision=fp32", "model.depth=2", "seed=5"]
    )
    assert changed.optimizer.lr == 3e-4
    assert changed.length == steps(7)
    assert changed.precision == "fp32"
    assert changed.model.depth == 2
    assert changed.seed == 5
    assert recipe.seed == 0
    changes = ["schedule.kind=staircase", "schedule.drops=[0.5]", "schedule.warmup=5 steps"]
    changed = override(recipe, [*changes, "noise.dropout=0.1", "patience=2", "tune=last:1"])
    assert changed.schedule == Schedule(kind="staircase", drops=(0.5,), warmup=steps(5))
    assert (changed.noise, changed.patience, changed.tune) == (
        Dropouts(dropout=0.1),
        2,
        Tune("last", 1),
    )


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("optimizer.wieght_decay=1", "optimizer has no field 'wieght_decay'; did you mean 'weight"),
        ("optimiser.lr=1", "Recipe has no part 'optimiser'; did you mean 'optimizer'"),
        ("lenght=1 epochs", "did you mean 'length'"),
        ("lr=1", "did you mean 'optimizer.lr'"),
        ("size=64", "did you mean 'model.size' or 'images.size'"),
        ("optimizer=1", "has fields of its own"),
        ("optimizer.lr", "needs NAME=VALUE"),
        ("optimizer.lr=fast", "a number, not 'fast'"),
        ("optimizer.lr=-1", "positive"),
        ("optimizer.lr=NaN", "positive"),
        ("precision=fp8", "auto | fp32 | bf16"),
        ("data.batch=0", "at least 1"),
        ("length=3", "a length|holds the fields|written"),
        ("ema=1", "between 0 and 1"),
        ("model.size=[48,48]", "--size"),
        ("length=0 steps", "longer than 0"),
        ("warmup=5 steps", "The recipe's 'warmup' is now 'schedule.warmup'."),
        ("label_smoothing=0.1", "now 'objective.label_smoothing'"),
        ("drop_path=0.1", "now 'noise.drop_path'"),
        ("dropout=0.1", "now 'noise.dropout'"),
        ("optimizer.kind=adam", "adamw | sgd | lamb"),
        ("optimizer.momentum=1", "between 0 and 1"),
        ("schedule.kind=step", "cosine | linear | rsqrt | constant | staircase"),
        ("schedule.start=-0.1", "a share from 0 to 1"),
        ("schedule.end=1.5", "a share from 0 to 1"),
        ("schedule.timescale=0 steps", "longer than 0"),
        ("schedule.cooldown=5 steps", "cosine needs '0 steps'"),
        ("schedule.drops=[0.6, 0.3]", "rise between 0 and 1"),
        ("schedule.drops=[0.3, 1]", "rise between 0 and 1"),
        ("schedule.warmup=5", "a length|holds the fields|written"),
        ("objective.loss=hinge", "softmax | sigmoid | bce"),
        ("objective.class_weights=sqrt", "none | balanced"),
        ("objective.distill=both", "hard | soft"),
        ("objective.distill_share=2", "a share from 0 to 1"),
        ("objective.temperature=0", "positive"),
        ("objective.head_bias=Infinity", "a number, not inf"),
        ("noise.drop_path=1", "below 1"),
        ("tune=head", "full, probe, last:N (blocks), lora or lora:RANK, not 'head'"),
        ("patience=0", "at least 1"),
        ("accumulate=0", "at least 1"),
        ("accumulate=65", "a batch of 64 images into at most as many parts, not 65"),
        ("compile=yes", "true or false"),
    ],
)
def test_bad_override_says_what_to_write(recipe: Recipe, assignment: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        override(recipe, [assignment])
    assert any(part in str(caught.value) for part in (words, *words.split("|")))


def test_settings_that_contradict_each_other_are_refused(recipe: Recipe) -> None:
    with pytest.raises(SpecError, match="set it to 0, or loss to bce"):
        Classification(loss="sigmoid", label_smoothing=0.1)
    for kind in ("rsqrt", "constant", "staircase"):
        with pytest.raises(SpecError, match=f"{kind} needs end = 0"):
            Schedule(kind=kind, end=0.1)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="set select=best"):
        replace(recipe, patience=3, select="last")


def test_a_run_folder_of_before_names_the_new_place(recipe: Recipe) -> None:
    with pytest.raises(SpecError, match=r"'dropout' is now 'noise\.dropout'"):
        Recipe.from_dict({**recipe.to_dict(), "dropout": 0.0})


def test_what_to_tune_is_a_kind_and_a_number() -> None:
    texts = ("full", "probe", "last:1", "last:12", "lora", "lora:4")
    tunes = [Tune.parse(text) for text in texts]
    kinds = [("full", 0, 0), ("probe", 0, 0), ("last", 1, 0), ("last", 12, 0), ("lora", 0, 8)]
    assert [(tune.kind, tune.blocks, tune.rank) for tune in tunes] == [*kinds, ("lora", 0, 4)]
    assert [Tune.parse(str(tune)) for tune in tunes] == tunes
    for numbers in ({"blocks": 1}, {"rank": 4}):
        with pytest.raises(SpecError, match="is for last"):
            Tune("probe", **numbers)
    for bad in ("", "last", "last:0", "last:-1", "last:x", "lora:0", "lora:", "probe:1", "FULL"):
        with pytest.raises(SpecError, match="is full, probe, last:N"):
            Tune.parse(bad)


@pytest.mark.parametrize("name", recipes.names())
def test_shipped_recipes_are_values(name: str) -> None:
    recipe = recipes.named(name)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
