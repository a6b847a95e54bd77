import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vitral import catalog, recipes
from vitral.errors import SpecError, UsageError
from vitral.model import build
from vitral.recipes import Request, resolve
from vitral.spec import ImageSpec
from vitral.training.recipe import epochs
from vitral.weights import artifact

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
    weights = saved(tmp_path / "w", representation=8)
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


def test_a_fine_tune_starts_where_the_weights_ended(tmp_path: Path) -> None:
    weights = saved(tmp_path / "w")
    run = recipes.train(
        "digits",
        start=weights,
        epochs=1,
        out=tmp_path / "run",
        changes=["optimizer.lr=1e-9", "ema=0"],
    )
    before, after = artifact.load(weights)[0], artifact.load(run.path / "best")[0]
    assert torch.allclose(
        before.state_dict()["patches.weight"], after.state_dict()["patches.weight"]
    )
    assert after.state_dict()["head.weight"].shape == (10, 32)
    assert after.state_dict()["head.weight"].abs().max() < 1e-6
    content = json.loads((run.path / "recipe.json").read_text())
    assert content["recipe"]["start"] == str(weights)
