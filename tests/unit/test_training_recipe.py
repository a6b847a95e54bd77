import json
from dataclasses import replace

import pytest

from vitral import catalog, recipes
from vitral.errors import SpecError
from vitral.spec import ImageSpec
from vitral.training.recipe import Duration, Recipe, epochs, override, steps


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(model=catalog.model("mu/16", size=32, classes=3), images=ImageSpec(size=(32, 32)))


def test_durations() -> None:
    assert epochs(2.5).in_steps(10) == 25
    assert steps(7).in_steps(10) == 7
    assert Duration.parse("20 epochs") == epochs(20)
    assert Duration.parse(" 1e4steps") == steps(10_000)
    assert Duration.parse(str(epochs(0.5))) == epochs(0.5)
    for bad in ("20", "-1 epochs", "3 hours", "1.5 steps"):
        with pytest.raises(SpecError):
            Duration.parse(bad)


def test_longer_durations_are_never_fewer_steps() -> None:
    counted = [epochs(amount / 7).in_steps(23) for amount in range(50)]
    assert counted == sorted(counted)


def test_a_recipe_survives_json(recipe: Recipe) -> None:
    changed = replace(recipe, warmup=steps(5), ema=0.99, seed=3)
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


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("optimizer.wieght_decay=1", "optimizer has no field 'wieght_decay'; did you mean 'weight"),
        ("optimiser.lr=1", "Recipe has no part 'optimiser'; did you mean 'optimizer'"),
        ("lenght=1 epochs", "did you mean 'length'"),
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
    ],
)
def test_bad_override_says_what_to_write(recipe: Recipe, assignment: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        override(recipe, [assignment])
    assert any(part in str(caught.value) for part in (words, *words.split("|")))


@pytest.mark.parametrize("name", recipes.names())
def test_shipped_recipes_are_values(name: str) -> None:
    recipe = recipes.named(name)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
