import contextlib
import csv
import dataclasses
import json
from pathlib import Path

import pytest
import torch

from drawn import draw_folder
from vitral import catalog
from vitral.data.datasets import open_dataset
from vitral.errors import MachineError, UsageError
from vitral.model import build
from vitral.specs import ImageSpec
from vitral.training import run_folder
from vitral.training.distributed.process_group import ProcessGroup
from vitral.training.recipe import Data, Recipe, Tune


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    data = draw_folder(tmp_path / "photos", kinds=2, each=5)
    return Recipe(
        model=catalog.model("mu/16", size=32),
        images=ImageSpec(size=(32, 32)),
        data=Data(source=str(data)),
    )


def test_created_and_read_back(recipe: Recipe, tmp_path: Path) -> None:
    data = open_dataset(recipe.data.source)
    complete = run_folder.with_data(recipe, data)
    assert complete.model.classes == 2
    run_folder.create(tmp_path / "run", complete, data)
    assert run_folder.read(tmp_path / "run") == (complete, data.fingerprint)
    record = json.loads((tmp_path / "run" / "recipe.json").read_text(encoding="utf-8"))
    assert record["environment"]["torch"]
    model, group = build(complete.model), ProcessGroup(torch.device("cpu"))
    lines = run_folder.summary_lines(complete, data, model, group, started=False, bf16=False)
    assert "2 classes" in lines[0]
    assert lines[-1].endswith("batch 64, peak lr 0.001, fp32 on cpu")
    probe = dataclasses.replace(complete, tune=Tune("probe"))
    lines = run_folder.summary_lines(probe, data, model, group, started=False, bf16=False)
    assert lines[-1] == "plan   one pass and a solver, fp32 on cpu"


def test_read_refuses(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a run folder"):
        run_folder.read(tmp_path)
    for content in ("{", "{}", '{"recipe": {"sede": 1}, "fingerprint": ""}'):
        (tmp_path / "recipe.json").write_text(content)
        with pytest.raises(UsageError, match="cannot be read"):
            run_folder.read(tmp_path)


def test_places_for_a_run(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    run_folder.check_new(tmp_path / "new", str(data))
    run_folder.check_new(tmp_path / "data-elsewhere", str(data))
    assert not (tmp_path / "new").exists()
    (tmp_path / "killed").mkdir()
    for left in (".recipe.json.writing", ".lock"):
        (tmp_path / "killed" / left).write_text("")
    run_folder.check_new(tmp_path / "killed", str(data))
    (tmp_path / "killed" / ".own").write_text("")
    with pytest.raises(UsageError, match="not empty"):
        run_folder.check_new(tmp_path / "killed", str(data))
    (tmp_path / "link").symlink_to(data)
    for inside in (data / "run", data, tmp_path / "link" / "run"):
        with pytest.raises(UsageError, match="inside"):
            run_folder.check_new(inside, str(data))
    with pytest.raises(MachineError, match="Cannot write"):
        run_folder.check_new(Path("/proc/run"), str(data))


def test_every_start_gets_a_dated_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as stack:
        places = [
            stack.enter_context(run_folder.new_folder(None, "/data/my photos/", "Ti/16"))
            for _ in range(12)  # in one second, most of them
        ]
        assert len(set(places)) == 12
        assert places[0].name.endswith("_my-photos_Ti-16")
        assert all(place.is_dir() for place in places)
        (places[3] / "recipe.json").write_text("{}")
    assert [place for place in places if place.exists()] == [places[3]]
    with run_folder.new_folder(tmp_path / "mine", "photos", "Ti/16") as out:
        assert out == tmp_path / "mine"
    assert not out.exists()


def test_a_start_that_fails_leaves_no_dated_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyError), run_folder.new_folder(None, "/photos", "Ti/16") as place:
        raise KeyError(str(place))
    with pytest.raises(UsageError, match="inside the images"), run_folder.new_folder(None, ".", ""):
        raise AssertionError("the data would get a class of its own")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(MachineError, match="Cannot write"), run_folder.new_folder(None, "/p", "Ti"):
        raise AssertionError("there is no room for it")


def test_a_run_that_never_began_is_removed_and_its_lock_last(tmp_path: Path) -> None:
    (tmp_path / "run" / "state").mkdir(parents=True)
    with run_folder.locked(tmp_path / "run", ProcessGroup(torch.device("cpu"))):
        (tmp_path / "run" / "recipe.json").write_text("{}")
        run_folder.remove_unstarted(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run_folder.remove_unstarted(tmp_path / "run")  # nothing is there


def test_the_log_goes_back_with_a_resume(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        run_folder.log(tmp_path, {"step": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "half')
    run_folder.rewind(tmp_path, 2)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    run_folder.rewind(tmp_path / "nowhere", 2)


def test_everything_left_out_is_listed_in_the_run(recipe: Recipe, tmp_path: Path) -> None:
    photos = Path(recipe.data.source)
    for number in range(7):
        (photos / "arrow" / f"bad, {number}.jpg").write_bytes(b"no image")
    data = open_dataset(photos, allow_unreadable=True)
    (tmp_path / "run").mkdir()
    run_folder.list_problems(tmp_path / "run", data.problems[:3])
    run_folder.list_problems(tmp_path / "run", data.problems)
    written = (tmp_path / "run" / "problems.csv").stat().st_mtime_ns
    run_folder.list_problems(tmp_path / "run", data.problems)
    assert (tmp_path / "run" / "problems.csv").stat().st_mtime_ns == written
    with (tmp_path / "run" / "problems.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"arrow/bad, {number}.jpg" for number in range(7)]
    assert {row["code"] for row in rows} == {"unreadable"}
    assert all(row["reason"].startswith("This is a text") for row in rows)
    shown = run_folder.summary_lines(
        recipe,
        data,
        build(recipe.model),
        ProcessGroup(torch.device("cpu")),
        started=False,
        bf16=False,
    )
    assert shown[6] == "... and 2 more notes on the data, in the run's problems.csv"
