"""The pictures that come first: unsure and unlike ones, and labels that others speak against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitral import create, labelling
from vitral.data import corrections
from vitral.data.datasets import open_dataset
from vitral.errors import DataError, ModelError
from vitral.fitting import fit
from vitral.loading import load
from vitral.specs import ImageSpec
from vitral.weights import artifact
from vitral.weights.card import Card

COLOURS = {"red": (220, 30, 30), 'gr"een': (30, 200, 30), "푸른": (30, 30, 220)}


def painted(path: Path, colour: tuple[int, int, int], seed: int) -> None:
    noise = np.random.default_rng(seed).integers(-25, 25, (32, 32, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    model = create("mu/16", classes=3, size=32)
    card = Card(model=model.spec, images=ImageSpec(size=(32, 32)), classes=tuple(COLOURS))
    artifact.save(tmp_path / "run", model.state_dict(), card)
    return tmp_path / "run"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten pictures of each colour, and one of each in the folder of the next."""
    names = list(COLOURS)
    for number, name in enumerate(names):
        for index in range(10):
            painted(
                tmp_path / "photos" / name / f"{index}.png", COLOURS[name], 100 * number + index
            )
        wrong = tmp_path / "photos" / names[number - 1] / f"wrong{number}.png"
        painted(wrong, COLOURS[name], 900 + number)
    return tmp_path / "photos"


def test_planted_errors_come_first_and_go_back_as_corrections(run, photos, tmp_path):
    ranking = labelling.label_errors(load(run), photos, 10)
    assert ranking.looked_at == 33
    assert {Path(row.path).name for row in ranking.rows[:3]} == {
        "wrong0.png",
        "wrong1.png",
        "wrong2.png",
    }
    assert all(row.suggested != row.given == Path(row.path).parent.name for row in ranking.rows)
    table = tmp_path / "relabel.csv"
    labelling.write(table, ranking.rows)
    assert corrections.read(table) == []  # nothing is filled in yet
    filled = table.read_text(encoding="utf-8").splitlines()
    rows = [filled[0]]
    for line, row in zip(filled[1:], ranking.rows, strict=True):
        quoted = row.suggested.replace('"', '""')
        rows.append(f'{line}"{quoted}"')
    table.write_text("\n".join(rows), encoding="utf-8")
    data = open_dataset(photos, label_file=str(table))
    counts = np.bincount(np.concatenate([data.train.labels, data.val.labels]))
    assert counts.tolist() == [11, 11, 11]


def test_the_choice_is_unsure_and_unlike():
    dice = np.random.default_rng(0)
    groups = np.tile(np.arange(4), 30)
    middles = np.eye(4, 8)
    features = middles[groups] + 0.01 * dice.normal(size=(120, 8))
    worth = np.full(120, 0.9)
    worth[groups == 3] = 0.1  # sure of these
    rows = labelling.choose(worth, features, 3)
    assert sorted(groups[rows]) == [0, 1, 2]
    assert len(set(labelling.choose(worth, features, 50).tolist())) == 50
    assert sorted(labelling.choose(worth, features, 500).tolist()) == list(range(120))
    same = labelling.choose(worth, np.ones((120, 8)), 5)  # copies: each once
    assert len(set(same.tolist())) == 5


def test_unsureness_is_the_margin():
    probabilities = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.6, 0.1, 0.3]])
    assert labelling.unsureness(probabilities) == pytest.approx([0, 1, 0.7])
    assert labelling.unsureness(probabilities, several=True) == pytest.approx([0, 1, 0.8])


def test_pictures_that_have_their_label_are_not_asked_for_again(run, photos):
    clf = load(run)
    first = labelling.next_pictures(clf, [photos], 20)
    assert all(Path(row.path).is_file() for row in first.rows)
    assert len({row.path for row in first.rows}) == 20
    second = labelling.next_pictures(clf, [photos], 20, done=[row.path for row in first.rows])
    assert len(second.rows) == 13
    assert not {row.path for row in first.rows} & {row.path for row in second.rows}
    everything = [row.path for row in (*first.rows, *second.rows)]
    with pytest.raises(DataError, match="has its label by now"):
        labelling.next_pictures(clf, [photos], 20, done=everything)


def test_a_model_that_tells_foreign_pictures_ranks_by_that_too(run, photos):
    """Its detector is fitted to all that it is to be asked with, early features among them."""
    fit(run, photos, announce=lambda _: None)
    classifier = load(run)
    assert classifier.foreign is not None and classifier.foreign.patches
    ranking = labelling.next_pictures(classifier, [photos], 3)
    assert len(ranking.rows) == 3


def test_what_cannot_be_ranked_is_a_sentence(run, photos, tmp_path):
    clf = load(run)
    painted(tmp_path / "pool" / "a.png", (1, 2, 3), 0)
    with pytest.raises(DataError, match="has no labels; to choose pictures to label: --next"):
        labelling.label_errors(clf, tmp_path / "pool", 3)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(DataError, match="None of the 1 files"):
        labelling.next_pictures(clf, [tmp_path / "bad"], 3)
    model = create("mu/16", classes=0, size=32)
    card = Card(model=model.spec, images=ImageSpec(size=(32, 32)))
    artifact.save(tmp_path / "headless", model.state_dict(), card)
    with pytest.raises(ModelError, match="no head"):
        labelling.next_pictures(load(tmp_path / "headless"), [photos], 3)
