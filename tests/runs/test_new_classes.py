"""Fine-tunes of weights that know some of the classes by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from drawn import draw_folder
from vitral import train
from vitral.data.shapes import KINDS
from vitral.weights import artifact

STILL = ["optimizer.lr=1e-9", "ema=0", "length=2 steps", "schedule.warmup=0 steps"]
STILL += ["data.workers=0", "precision=fp32"]
Vitral = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes: those of `trained` without its first, and two more."""
    folder = draw_folder(tmp_path_factory.mktemp("more") / "photos", kinds=5, each=12)
    for picture in (folder / KINDS[0]).iterdir():
        picture.unlink()
    (folder / KINDS[0]).rmdir()
    return folder


def test_rows_of_known_classes_are_kept_and_the_rest_is_said(
    trained: Path, more: Path, tmp_path: Path, vitral: Vitral
) -> None:
    words = [word for change in STILL for word in ("--set", change)]
    run = tmp_path / "run"
    code, out, err = vitral("train", more, "--from", trained / "run", "--out", run, *words)
    assert code == 0, err
    said = next(line for line in (out + err).splitlines() if "kept by name" in line)
    new = ", ".join(sorted(KINDS[3:5]))
    assert f"rows of 2 classes are kept by name; 2 classes ({new}) begin at the class mean" in said
    assert f"dropped: 1 class ({KINDS[0]})" in said
    before, old = artifact.load(trained / "run" / "best")
    after, card = artifact.load(run / "best")
    for name in KINDS[1:3]:
        mine = after.head.weight[card.classes.index(name)]
        assert torch.allclose(mine, before.head.weight[old.classes.index(name)], atol=1e-6)
    assert all(after.head.weight[card.classes.index(name)].any() for name in KINDS[3:5])
    changes = json.loads((run / "evaluation.json").read_text())["changes"]
    assert changes["dropped"] == [KINDS[0]]
    assert [c["name"] for c in changes["classes"] if c["known"]] == sorted(KINDS[1:3])
    page = (run / "report.html").read_text()
    assert "Against the network it began from" in page and KINDS[0] in page


@pytest.mark.parametrize("none_left", [True, False], ids=["from its start", "from a state"])
def test_a_resume_compares_with_the_same_answers_and_ends_in_the_same_weights(
    trained: Path, more: Path, tmp_path: Path, none_left: bool
) -> None:
    from vitral.planning.plan import resume

    changes = ["data.workers=0", "length=4 steps", "schedule.warmup=1 steps", "save_seconds=0"]
    whole = train(more, start=trained / "run", out=tmp_path / "whole", changes=changes)
    stopped = tmp_path / "stopped"
    train(more, start=trained / "run", out=stopped, changes=changes)
    before = (stopped / "before.json").read_bytes()
    slots = sorted((stopped / "state").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    for file in slots if none_left else slots[-1:]:
        file.unlink()
    assert bool(list((stopped / "state").iterdir())) != none_left
    resume(stopped)
    assert (stopped / "before.json").read_bytes() == before
    read = artifact.load_tensors(whole.path / "last")[0]
    again = artifact.load_tensors(stopped / "last")[0]
    assert all(torch.equal(read[name], again[name]) for name in read)
    mine, theirs = (json.loads((p / "evaluation.json").read_text()) for p in (whole.path, stopped))
    assert mine["changes"] == theirs["changes"]


def test_a_probe_says_that_it_solves_for_the_whole_head(
    trained: Path, more: Path, tmp_path: Path, vitral: Vitral
) -> None:
    options = ("--tune", "probe", "--out", tmp_path / "run", "--set", "data.workers=0")
    code, out, err = vitral("train", more, "--from", trained / "run", *options)
    assert code == 0, err
    assert "a probe solves for the whole head" in out + err
    assert "kept by name" not in out + err
