"""Trainings that begin with a word, or with weights."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from drawn import arrow
from vitral import load, train
from vitral.data.loader import eval_batches
from vitral.images.preprocess import normalise
from vitral.training.run_folder import Run
from vitral.weights import artifact


def test_the_verb_says_what_came_of_it_and_what_to_type_next(
    vitral: Callable[..., tuple[int, str, str]], photos: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    options = ("--model", "mu/8", "--size", "32x32", "--epochs", "1", "--batch", "8", "--seed", "1")
    code, out, err = vitral("train", photos, *options, "--out", run, "--set", "data.workers=0")
    assert code == 0, err
    assert "accuracy" in out
    assert f"vitral predict {run}" in out
    assert (run / "best" / "model.json").exists()


def test_a_fine_tune_starts_where_the_weights_ended(trained: Path, tmp_path: Path) -> None:
    changes = ["optimizer.lr=1e-9", "ema=0", "length=2 steps", "schedule.warmup=0 steps"]
    begun = Run(trained / "run", load(trained / "run").evaluate(trained / "photos"))
    run = train("digits", start=begun, out=tmp_path / "run", changes=changes)
    before, after = artifact.load(trained / "run" / "best")[0], artifact.load(run.path / "best")[0]
    assert torch.allclose(
        before.state_dict()["patches.weight"], after.state_dict()["patches.weight"]
    )
    assert after.state_dict()["head.weight"].shape[0] == 10
    assert after.state_dict()["head.weight"].abs().max() < 1e-6
    content = json.loads((run.path / "recipe.json").read_text())
    assert content["recipe"]["start"] == str(trained / "run")


def test_a_word_of_the_command_is_an_argument_in_python(trained: Path, tmp_path: Path) -> None:
    short = ["data.workers=0", "length=2 steps", "schedule.warmup=0 steps"]
    run = train(
        trained / "photos",
        recipe=trained / "run" / "recipe.json",
        tune="full",
        batch="auto",
        seed=7,
        device="cpu",
        log="tensorboard",
        out=tmp_path / "run",
        changes=short,
    )
    recipe = json.loads((run.path / "recipe.json").read_text())["recipe"]
    assert (recipe["seed"], recipe["tune"]) == (7, "full")
    assert (run.path / "tensorboard").exists()
    again = train(trained / "photos", resume=run, device="cpu")
    assert again.evaluation.accuracy == run.evaluation.accuracy


def test_a_probe_moves_the_head_alone_and_is_the_logistic_regression(
    trained: Path, tmp_path: Path
) -> None:
    photos, begun = trained / "photos", trained / "run"
    run = train(
        photos,
        start=begun,
        recipe="probe",
        out=tmp_path / "probe",
        changes=["data.workers=0", "precision=fp32"],
    )
    before, after = load(begun).model.state_dict(), load(run.path).model.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias"}
    classifier = load(run.path, precision="fp32")
    split = classifier.eval_set(photos).split
    answers = classifier.evaluate(split)
    assert answers.accuracy == run.evaluation.accuracy
    assert answers.samples == len(split) > 5
    batch = next(iter(eval_batches(split, classifier.card.images, batch=len(split), workers=0)))
    with torch.no_grad():
        features = classifier.model.representation(normalise(batch.images, classifier.card.images))
        expected = features @ after["head.weight"].T + after["head.bias"]
        logits = classifier.logits(normalise(batch.images, classifier.card.images))
    np.testing.assert_allclose(logits.numpy(), expected.numpy(), atol=1e-5)


def test_flips_of_classes_that_a_mirror_turns_into_one_another_are_spoken_of(
    vitral: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    for name in ("left", "right"):
        (tmp_path / "arrows" / name).mkdir(parents=True)
        for index in range(45):
            picture = Image.fromarray(arrow(name, random))
            picture.save(tmp_path / "arrows" / name / f"{index}.png")
    options = ("--model", "mu/8", "--size", "32", "--epochs", "1", "--set", "data.workers=0")
    run = tmp_path / "run"
    code, _, err = vitral("train", tmp_path / "arrows", *options, "--out", run)
    assert code == 0, err
    (said,) = (line for line in err.splitlines() if "turns classes into one another" in line)
    assert said.startswith("flips ") and "--set augment.flip=0" in said
    assert "mistakes are between classes that a mirror turns into one another" in err
    decisions = json.loads((run / "recipe.json").read_text())["decisions"]
    assert {one["topic"] for one in decisions} >= {"recipe", "layout", "labels", "split", "fit"}
    assert [one["pairs"] for one in decisions if one["topic"] == "flips"] == [[["left", "right"]]]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "A mirror turns classes into one another" in page and ">mirrored</span>" in page
    without = ("--set", "augment.flip=0", "--dry-run", "--json")
    code, out, err = vitral("train", tmp_path / "arrows", *options, *without)
    assert code == 0, err
    assert "flips" not in {one["topic"] for one in json.loads(out)["decisions"]}
