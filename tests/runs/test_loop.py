"""What a whole run does: its record, its resumes, the files and the numbers that go bad."""

import json
import shutil
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from contexts import context
from drawn import draw_folder
from planned import resolve, train
from vitral.errors import DataError, Interrupted, ModelError, UsageError
from vitral.loading import load
from vitral.planning.plan import open_data, resume
from vitral.planning.request import Request
from vitral.planning.resolve import draft
from vitral.report import rerender
from vitral.training import loop, new_classes, run_folder, state
from vitral.training.display import Display
from vitral.training.distributed.process_group import ProcessGroup
from vitral.training.recipe import Recipe, override, steps
from vitral.training.session import begin_run


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("data") / "photos", kinds=2, each=20)


@pytest.fixture(scope="module")
def recipe(photos: Path) -> Recipe:
    """Four steps an epoch, two epochs, with every kind of noise on."""
    asked = Request(
        data=str(photos),
        model="mu/8",
        size=32,
        epochs=2,
        batch=8,
        changes=["data.workers=0", "noise.dropout=0.1", "augment.mixup=0.2", "save_seconds=1000"],
    )
    return resolve(asked)


WILD = ["optimizer.lr=1e30", "schedule.warmup=0 epochs", "optimizer.clip=0"]
ALONE = ProcessGroup(torch.device("cpu"))


def quiet() -> Display:
    return Display(quiet=True)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "last" / "model.safetensors")


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe's run, from its first step to its last; only to be read."""
    return train(recipe, tmp_path_factory.mktemp("whole") / "run", display=quiet()).path


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Path:
    """A copy of that run, to do with as one likes."""
    return shutil.copytree(whole, tmp_path / "finished")


def equal(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return set(first) == set(second) and all(torch.equal(first[k], second[k]) for k in first)


def test_a_run_leaves_the_whole_record(whole: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert names == {
        ".lock",
        "best",
        "evaluation.json",
        "last",
        "metrics.jsonl",
        "predictions.csv",
        "recipe.json",
        "report.html",
        "state",
        "views.jpg",
    }
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    accuracies = {line["step"]: line["val_accuracy"] for line in lines if "val_accuracy" in line}
    assert list(accuracies) == [4, 8]
    losses = [line for line in lines if "loss" in line]
    assert [line["step"] for line in losses] == list(range(1, 9))
    assert losses[0]["lr"] > 0
    card = json.loads((whole / "best" / "model.json").read_text())
    assert card["metrics"]["accuracy"] == max(accuracies.values()), "the best is kept"
    assert card["classes"] == sorted(card["classes"])
    evaluation = json.loads((whole / "evaluation.json").read_text())
    rows = (whole / "predictions.csv").read_text().splitlines()
    assert len(rows) == evaluation["samples"] + 1


def test_the_same_recipe_gives_the_same_weights_and_another_seed_others(
    recipe: Recipe, whole: Path, tmp_path: Path
) -> None:
    before = torch.random.get_rng_state()
    for name, seed in (("same", 0), ("other", 1)):
        train(replace(recipe, seed=seed), tmp_path / name, display=quiet())
    assert torch.equal(before, torch.random.get_rng_state()), "the caller's random state moved"
    assert equal(whole, tmp_path / "same")
    assert not equal(whole, tmp_path / "other")


def test_workers_change_nothing(recipe: Recipe, whole: Path, tmp_path: Path) -> None:
    train(override(recipe, ["data.workers=2"]), tmp_path / "run", display=quiet())
    assert equal(whole, tmp_path / "run")


class Stop(Display):
    """A display that presses Ctrl-C after a step."""

    def __init__(self, after: int) -> None:
        super().__init__(quiet=True)
        self.after = after

    def step(
        self,
        done: int,
        total: int,
        images: int,
        *,
        loss: float,
        lr: float,
        measures: Mapping[str, float],
    ) -> None:
        super().step(done, total, images, loss=loss, lr=lr, measures=measures)
        if done == self.after:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("after", [1, 4, 6])
def test_ctrl_c_saves_and_a_resume_ends_at_the_same_bits(
    recipe: Recipe, whole: Path, tmp_path: Path, after: int
) -> None:
    with pytest.raises(Interrupted, match=f"after step {after} of 8.*--resume"):
        train(recipe, tmp_path / "run", display=Stop(after))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    saved = state.load(tmp_path / "run" / "state")
    assert saved
    assert saved[1].step == after
    resumed = resume(tmp_path / "run", display=quiet())
    assert equal(whole, tmp_path / "run")
    answers = (whole / "predictions.csv").read_text()
    assert (resumed.path / "predictions.csv").read_text() == answers
    logs = [
        [(line["step"], line.get("loss"), line.get("val_loss")) for line in map(json.loads, text)]
        for text in (
            (run / "metrics.jsonl").read_text().splitlines() for run in (whole, tmp_path / "run")
        )
    ]
    assert logs[0] == logs[1]


def test_a_finished_run_resumes_to_itself(whole: Path, finished: Path) -> None:
    again = resume(finished, display=quiet())
    assert equal(whole, finished)
    assert again.evaluation.samples > 0


def test_a_changed_data_set_is_not_resumed(finished: Path, photos: Path) -> None:
    extra = next(photos.rglob("*.jpg"))
    new = extra.with_name("new.jpg")
    new.write_bytes(extra.read_bytes())
    try:
        with pytest.raises(DataError, match="changed since"):
            resume(finished, display=quiet())
    finally:
        new.unlink()


def test_a_step_that_is_not_finite_is_not_applied_and_leaves_no_folder(
    recipe: Recipe, tmp_path: Path
) -> None:
    changed = override(recipe, WILD)
    with pytest.raises(ModelError, match=r"Step \d+ is not finite.*optimizer.lr=") as caught:
        train(changed, tmp_path / "run", display=quiet())
    assert "first bad tensor" in str(caught.value)
    assert "3 times with half the learning rate" in str(caught.value)
    assert not (tmp_path / "run").exists(), "nothing was ever saved"


def test_select_last_keeps_the_last_whatever_came_before(recipe: Recipe, tmp_path: Path) -> None:
    run = train(replace(recipe, select="last"), tmp_path / "run", display=quiet())
    best = load_file(run.path / "best" / "model.safetensors")
    assert all(torch.equal(best[key], value) for key, value in weights(run.path).items())


def test_a_file_that_goes_bad_while_training_is_left_out_and_named(
    recipe: Recipe, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = sorted(photos.rglob("*.jpg"))[3]
    content = victim.read_bytes()
    try:
        data = open_data(recipe.data, recipe.images.size)
        victim.unlink()
        chosen = folder_session(recipe, data, tmp_path)
        loop.fit(chosen)
    finally:
        victim.write_bytes(content)
    assert f"left out: {victim.relative_to(photos).as_posix()}" in capsys.readouterr().err


def folder_session(recipe: Recipe, data: object, tmp_path: Path) -> loop.Session:
    complete = run_folder.with_data(recipe, data)  # type: ignore[arg-type]
    run_folder.create(tmp_path / "run", complete, data)  # type: ignore[arg-type]
    torch.manual_seed(0)
    return begin_run(context(complete, data, tmp_path / "run", Display()))  # type: ignore[arg-type]


def test_resume_before_any_state_starts_over(whole: Path, finished: Path, tmp_path: Path) -> None:
    for slot in (finished / "state").iterdir():
        slot.write_bytes(b"")
    resume(finished, display=quiet())
    assert equal(whole, finished)
    with pytest.raises(UsageError, match="not a run folder"):
        resume(tmp_path / "nothing", display=quiet())


def test_a_length_in_steps(recipe: Recipe, tmp_path: Path) -> None:
    run = train(replace(recipe, length=steps(3)), tmp_path / "run", display=quiet())
    saved = state.load(run.path / "state")
    assert saved
    assert saved[1].step == 3
    assert np.isfinite(run.evaluation.loss)


def test_a_lost_best_is_chosen_again(finished: Path) -> None:
    (finished / "best" / "model.safetensors").write_bytes(b"lost")
    run = resume(finished, display=quiet())
    assert load_file(run.path / "best" / "model.safetensors")


def test_a_damaged_slot_is_named(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished / "state" / "a.safetensors").write_bytes(b"half")
    resume(finished, display=Display())
    assert "state/a is not whole" in capsys.readouterr().err


def test_a_run_goes_on_from_another_folder(
    recipe: Recipe, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    relative = replace(recipe, data=replace(recipe.data, source=photos.name))
    with pytest.raises(Interrupted):
        train(relative, tmp_path / "run", display=Stop(2))
    monkeypatch.chdir(tmp_path)
    resume(tmp_path / "run", display=quiet())


def test_a_second_start_changes_nothing_of_the_first(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes when the first has looked at the folder and made its network, as both had."""
    begin = new_classes.begin
    second = replace(recipe, seed=recipe.seed + 1)

    def begin_both(run: object) -> object:
        monkeypatch.setattr(new_classes, "begin", begin)
        with pytest.raises(Interrupted):
            train(second, tmp_path / "run", display=Stop(2))
        return begin(run)  # type: ignore[arg-type]

    monkeypatch.setattr(new_classes, "begin", begin_both)
    with pytest.raises(UsageError, match="already holds a run"):
        train(recipe, tmp_path / "run", display=quiet())
    assert run_folder.read(tmp_path / "run")[0].seed == second.seed
    with run_folder.locked(tmp_path / "other", ALONE), pytest.raises(UsageError, match="Another"):
        train(recipe, tmp_path / "other", display=quiet())
    assert [entry.name for entry in (tmp_path / "other").iterdir()] == [".lock"]


def test_a_run_killed_while_best_was_replaced_is_read_as_it_is_and_put_right_by_its_resume(
    finished: Path,
) -> None:
    old = finished / ".best.old"
    (finished / "best").rename(old)
    assert load(finished).classes
    assert rerender(finished, path=finished.parent / "page.html").exists()
    assert old.exists(), "a reader changes nothing"
    resume(finished, display=quiet())
    assert (finished / "best").exists() and not old.exists()


def test_images_that_moved_are_found_again_and_others_are_refused(
    recipe: Recipe, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, here, there = tmp_path / "run", tmp_path / "here", tmp_path / "there"
    shutil.copytree(photos, here)
    moving = replace(recipe, data=replace(recipe.data, source=str(here)))
    with pytest.raises(Interrupted):
        train(moving, run, display=Stop(2))
    content = (run / "recipe.json").read_bytes()
    here.rename(there)
    with pytest.raises(DataError, match=f"elsewhere now: vitral train PLACE --resume {run}"):
        resume(run, display=quiet())
    first = next(there.rglob("*.jpg"))
    kept = first.read_bytes()
    first.unlink()
    with pytest.raises(DataError, match=r"there were 3\d train.* 8 val images and are"):
        resume(run, str(there), display=quiet())
    first.write_bytes(kept)
    with pytest.raises(Interrupted):
        resume(run, str(there), display=Stop(4))
    resume(run, display=Display())  # the place is kept
    assert (run / "recipe.json").read_bytes() == content, "what began the run stays as it was"
    (place,) = json.loads((run / "places.json").read_text())
    assert (place["source"], place["from_step"]) == (str(there), 2)
    card = json.loads((run / "last" / "model.json").read_text())
    assert card["made_by"]["data"]["source"] == str(there)
    assert f"data   {there}" in capsys.readouterr().err
    straight = train(replace(moving, data=replace(moving.data, source=str(there))), tmp_path / "s")
    assert equal(run, straight.path)
    again = Request(recipe=str(run / "recipe.json"))
    assert draft(again).data.source == str(there)


def test_one_process_at_a_time(finished: Path) -> None:
    with (
        run_folder.locked(finished, ALONE),
        pytest.raises(UsageError, match="Another process"),
    ):
        resume(finished, display=quiet())


def test_training_stops_at_too_many_damaged_images_in_a_split_of_ones_own(tmp_path: Path) -> None:
    for part, each in (("train", 30), ("val", 4)):
        draw_folder(tmp_path / "photos" / part, kinds=2, each=each)
    for path in sorted((tmp_path / "photos" / "train").rglob("*.jpg"))[:8]:
        content = bytearray(path.read_bytes())
        content[200:-50] = bytes(len(content) - 250)  # header and end are whole
        path.write_bytes(content)
    asked = {"data": str(tmp_path / "photos"), "model": "mu/8", "size": 32, "epochs": 1, "batch": 8}
    recipe = resolve(Request(**asked, changes=["data.workers=0"]))
    with pytest.raises(DataError, match="cannot be read, more than 1 %"):
        train(recipe, tmp_path / "run", display=quiet())
    assert not (tmp_path / "run").exists()
    allowed = resolve(Request(**asked, changes=["data.workers=0", "data.allow_unreadable=true"]))
    assert train(allowed, tmp_path / "run", display=quiet()).path.exists()


def test_a_kill_in_the_first_moment_costs_nothing(recipe: Recipe, tmp_path: Path) -> None:
    out, sheet = tmp_path / "run", tmp_path / "run" / "views.jpg"
    out.mkdir()
    (out / ".recipe.json.writing").write_text('{"recipe": {')
    recipe = override(recipe, ["length=2 steps", "schedule.warmup=0 steps"])
    train(recipe, out, display=quiet())
    assert not (out / ".recipe.json.writing").exists()
    seen = sheet.read_bytes()
    sheet.unlink()  # killed after recipe.json and before this
    resume(out, display=quiet())
    assert sheet.read_bytes() == seen
