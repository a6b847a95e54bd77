from dataclasses import replace
from pathlib import Path

import pytest

from vitral import catalog, recipes
from vitral.errors import SpecError, UsageError
from vitral.recipes import Request, resolve
from vitral.training.recipe import epochs

FOLDER = Path(recipes.__file__).parent
MOST_LINES = 45


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
    assert short.warmup.amount == pytest.approx(base.warmup.amount / base.length.amount)


def test_size_alone_changes_model_and_images() -> None:
    recipe = resolve(Request(data="x", size=64))
    assert recipe.model.size == recipe.images.size == (64, 64)
    with pytest.raises(SpecError, match="patch"):
        resolve(Request(data="x", size=100))


def test_unknown_recipe() -> None:
    with pytest.raises(UsageError, match="did you mean 'digits'"):
        recipes.named("digit")


@pytest.mark.parametrize("name", recipes.names())
def test_one_run_is_one_screen(name: str) -> None:
    text = (FOLDER / f"{name.replace('-', '_')}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    assert "vitral train" in text, "the docstring says how to run it"
