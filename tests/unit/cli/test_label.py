"""label, as it is typed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import vitral.cli.label  # noqa: F401 - hangs the verb on the application
from drawn import hashes
from vitral import create
from vitral.specs import ImageSpec
from vitral.weights import artifact
from vitral.weights.card import Card


@pytest.fixture
def run(tmp_path: Path) -> Path:
    model = create("mu/16", classes=3, size=32)
    card = Card(model=model.spec, images=ImageSpec(size=(32, 32)), classes=("x", "<y>", 'z"'))
    artifact.save(tmp_path / "run", model.state_dict(), card)
    return tmp_path / "run"


def test_pictures_to_label_in_a_table_and_for_label_studio(vitral, run, photos, tmp_path):
    before = hashes(photos)
    out = tmp_path / "relabel.csv"
    tasks = tmp_path / "tasks.json"
    code, shown, err = vitral(
        "label", run, photos, "--next", 5, "--out", out, "--label-studio", tasks
    )
    assert code == 0, err
    assert "looked at 36 pictures: 5 pictures to label" in shown
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == ["path", "given", "suggested", "score", "reason", "label"]
    assert len(rows) == 5
    assert all(Path(row["path"]).is_file() and not row["label"] for row in rows)
    written = json.loads(tasks.read_text(encoding="utf-8"))
    assert [task["data"]["path"] for task in written] == [row["path"] for row in rows]
    assert "&lt;y&gt;" in tasks.with_suffix(".xml").read_text(encoding="utf-8")
    assert hashes(photos) == before
    # what is filled in is never written over, and not asked for again
    code, _, err = vitral("label", run, photos, "--next", 5, "--out", out)
    assert code == 2 and "may hold labels that were filled in" in err
    filled = out.read_text(encoding="utf-8").splitlines()
    out.write_text("\n".join([filled[0], *(f"{line}x" for line in filled[1:])]), encoding="utf-8")
    again = tmp_path / "again.csv"
    code, shown, err = vitral(
        "label", run, photos, "--next", 40, "--labels", out, "--out", again, "--json"
    )
    assert code == 0, err
    answer = json.loads(shown)
    assert len(answer["rows"]) == 31
    assert not {row["path"] for row in answer["rows"]} & {row["path"] for row in rows}


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ((), 2, "Say one: --next 50"),
        (("--next", 3, "--errors", 3), 2, "Say one"),
        (("--errors", 3, "--labels", "x.csv"), 2, "takes no --labels"),
        (("--next", 3, "--out", "x.txt"), 2, "does not end in .csv"),
        (("--next", 3, "--labels", "no.csv"), 3, "no.csv does not exist"),
    ],
)
def test_what_does_not_go_together(vitral, run, photos, monkeypatch, words, code, sentence):
    monkeypatch.chdir(run.parent)
    result, _, err = vitral("label", run, photos, *words)
    assert (result, sentence in err) == (code, True), err
    assert not (run.parent / "relabel.csv").exists()


def test_nothing_is_written_among_the_pictures(vitral, run, photos):
    code, _, err = vitral("label", run, photos, "--next", 3, "--out", photos / "relabel.csv")
    assert code == 2
    assert "write somewhere else" in err
