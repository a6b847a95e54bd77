"""Fine-tunes of weights that know some of the classes by name."""

import json
import shutil
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
    assert "A probe solves for the whole head" in out + err
    assert "kept by name" not in out + err


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, more: Path) -> Path:
    """A folder with one class, which `trained` does not know."""
    folder = tmp_path_factory.mktemp("one") / "photos"
    folder.mkdir()
    shutil.copytree(more / KINDS[4], folder / KINDS[4])
    return folder


@pytest.mark.parametrize("data", ["one", "more"])
def test_keep_knows_the_classes_of_both(
    trained: Path, data: str, request: pytest.FixtureRequest, tmp_path: Path, vitral: Vitral
) -> None:
    photos = request.getfixturevalue(data)
    words = [word for change in STILL for word in ("--set", change)]
    run = tmp_path / "run"
    code, out, err = vitral(
        "train", photos, "--from", trained / "run", "--keep", "--out", run, *words
    )
    assert code == 0, err
    assert "rows of 3 classes are kept by name" in out + err
    before, old = artifact.load(trained / "run" / "best")
    after, card = artifact.load(run / "best")
    names = {path.name for path in photos.iterdir()}
    assert set(card.classes) == {*old.classes, *names}
    for name in old.classes:
        mine = after.head.weight[card.classes.index(name)]
        assert torch.allclose(mine, before.head.weight[old.classes.index(name)], atol=1e-6)
    content = json.loads((run / "recipe.json").read_text())["recipe"]
    assert content["objective"]["distill"] == "known"
    assert content["data"]["known"] == list(old.classes)
    changes = json.loads((run / "evaluation.json").read_text())["changes"]
    assert changes["dropped"] == []
    code, out, err = vitral("evaluate", run, photos, "--json")
    assert code == 0, err
    assert json.loads(out)["split"] == "val", "what this run held out is found again"


def test_a_run_that_keeps_is_resumed_to_the_bit_without_its_weights(
    trained: Path, one: Path, tmp_path: Path
) -> None:
    from vitral.planning.plan import resume

    changes = ["data.workers=0", "length=6 steps", "schedule.warmup=1 steps", "save_seconds=0"]
    rename = {KINDS[0]: "old 이름"}
    whole = train(
        one,
        start=trained / "run",
        keep=True,
        rename=rename,
        out=tmp_path / "whole",
        changes=changes,
    )
    stopped = tmp_path / "stopped"
    shutil.copytree(whole.path, stopped)
    slots = sorted((stopped / "state").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    slots[-1].unlink()
    resume(stopped)
    read, card = artifact.load_tensors(whole.path / "last")
    again, _ = artifact.load_tensors(stopped / "last")
    assert all(torch.equal(read[name], again[name]) for name in read)
    assert "old 이름" in card.classes and KINDS[0] not in card.classes


def test_a_renamed_class_keeps_its_row(trained: Path, tmp_path: Path, vitral: Vitral) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(trained / "photos", photos)
    (photos / KINDS[1]).rename(photos / "another")
    words = [word for change in STILL for word in ("--set", change)]
    options = ("--from", trained / "run", "--rename", f"{KINDS[1]}=another", *words)
    run = tmp_path / "run"
    code, _, err = vitral("train", photos, *options, "--out", run)
    assert code == 0, err
    before, old = artifact.load(trained / "run" / "best")
    after, card = artifact.load(run / "best")
    mine = after.head.weight[card.classes.index("another")]
    assert torch.allclose(mine, before.head.weight[old.classes.index(KINDS[1])], atol=1e-6)
    changes = json.loads((run / "evaluation.json").read_text())["changes"]
    assert all(change["known"] for change in changes["classes"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--keep"], "--keep keeps what the weights of --from know; name them"),
        (["--rename", "a=b"], "--rename renames classes that the weights of --from know"),
        (["--from", "RUN", "--rename", "a"], "--rename is OLD=NEW, not 'a'"),
        (["--from", "RUN", "--rename", "a=b=c"], "vitral.train(..., rename={old: new})"),
        (["--from", "RUN", "--rename", "a=a"], "two names that differ"),
        (["--from", "RUN", "--rename", "nothing=x"], "no class 'nothing'"),
        (["--from", "RUN", "--rename", f"{KINDS[0]}={KINDS[1]}"], "would call 2 classes"),
        (["--from", "RUN", "--rename", f"{KINDS[0]}=zebra"], "has no class 'zebra'"),
        (["--from", "RUN", "--keep", "--tune", "probe"], "take --tune last:1"),
        (["--from", "RUN", "--keep", "--recipe", "masked-patches"], "learns without any"),
    ],
)
def test_what_cannot_be_kept_or_renamed_is_answered(
    trained: Path, tmp_path: Path, vitral: Vitral, words: list[str], message: str
) -> None:
    words = [str(trained / "run") if word == "RUN" else word for word in words]
    code, _, err = vitral("train", trained / "photos", "--out", tmp_path / "run", *words)
    assert code in (2, 3)
    assert message in " ".join(err.split())
    assert not (tmp_path / "run").exists()


def test_old_answers_of_another_kind_are_refused(
    photos: Path, tmp_path: Path, vitral: Vitral
) -> None:
    from multi_label import multi_label_artifact

    tags = multi_label_artifact(photos, tmp_path / "tags")
    code, _, err = vitral("train", photos, "--from", tags, "--keep", "--out", tmp_path / "run")
    assert code == 3
    assert "several of their classes" in err


def test_several_labels_are_kept_too(photos: Path, tmp_path: Path, vitral: Vitral) -> None:
    from multi_label import multi_label_artifact

    tags = multi_label_artifact(photos, tmp_path / "tags")
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg"))
    rows = [f"{name},{'a|e' if number % 2 else 'e'}" for number, name in enumerate(names)]
    (photos / "train.csv").write_text("\n".join(["path,labels", *rows]))
    run = tmp_path / "run"
    words = [word for change in STILL for word in ("--set", change)]
    options = ("--keep", "--set", "objective.loss=bce", *words)
    code, _, err = vitral("train", photos / "train.csv", "--from", tags, "--out", run, *options)
    assert code == 0, err
    before, _ = artifact.load(tags)
    after, card = artifact.load(run / "best")
    assert card.classes == ("a", "b", "c", "d", "e") and card.labels == "several"
    assert torch.allclose(after.head.weight[:4], before.head.weight, atol=1e-5)
