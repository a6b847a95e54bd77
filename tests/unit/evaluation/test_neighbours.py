"""The nearest training images: against a full sort, in the cache, and where images are gone."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import randomised, tiny

from drawn import draw_folder, hashes
from vitral.data.datasets import open_dataset
from vitral.engines.torch_engine import TorchEngine
from vitral.errors import DataError, ModelError, UsageError
from vitral.evaluation import neighbours
from vitral.evaluation.neighbours import (
    NeighbourIndex,
    Similar,
    missing,
    neighbours_of,
    neighbours_of_training,
)
from vitral.images import preprocess
from vitral.specs import ImageSpec
from vitral.storage import cache
from vitral.weights.card import Card

SPEC = tiny(size=(32, 32), patch=(16, 16), classes=3)
NETWORK = randomised(SPEC).float()
ENGINE = TorchEngine(NETWORK, torch.device("cpu"), "fp32")


def silent(_: str) -> None:
    """Nothing is to be said here."""
    raise AssertionError(_)


def index_of(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return NeighbourIndex(
        vectors=unit.astype(np.float16),
        paths=tuple(f"{i}.png" for i in range(len(vectors))),
        labels=tuple("ab"[i % 2] for i in range(len(vectors))),
        among=len(vectors),
    )


def card_for(folder: Path) -> Card:
    data = open_dataset(folder, allow_unreadable=True)
    settings = {
        "source": str(folder.resolve()),
        "split_seed": 0,
        "val_fraction": 0.2,
        "count": None,
    }
    return Card(
        model=SPEC,
        images=ImageSpec(size=SPEC.size),
        classes=data.classes,
        made_by={
            "recipe": {"data": settings},
            "data": {"source": folder.name, "fingerprint": data.fingerprint},
        },
    )


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VITRAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("chunk", [1 << 24, 70])
def test_the_nearest_are_those_of_a_full_sort(monkeypatch, chunk):
    monkeypatch.setattr(neighbours, "_CHUNK", chunk)
    random = np.random.default_rng(0)
    known = random.normal(size=(57, 8)).astype(np.float32)
    asked = random.normal(size=(11, 8)).astype(np.float32)
    index = index_of(known)
    vectors = index.vectors.astype(np.float64)
    cosines = (asked / np.linalg.norm(asked, axis=1, keepdims=True)) @ vectors.T
    for row, found in zip(cosines, index.nearest(asked, 4), strict=True):
        order = np.argsort(-row, kind="stable")[:4]
        assert [similar.path for similar in found] == [f"{i}.png" for i in order]
        np.testing.assert_allclose([similar.cosine for similar in found], row[order], atol=1e-5)
        assert [similar.label for similar in found] == ["ab"[i % 2] for i in order]


def test_more_than_there_are_and_none():
    index = index_of(np.eye(3, dtype=np.float32))
    assert len(index.nearest(np.ones((2, 3), np.float32), 50)[0]) == 3
    with pytest.raises(UsageError, match="from 1, not 0"):
        index.nearest(np.ones((2, 3), np.float32), 0)
    nothing = index.nearest(np.zeros((1, 3), np.float32), 1)[0][0]
    assert nothing.cosine == 0
    with pytest.raises(ModelError, match="not finite"):
        index.nearest(np.full((1, 3), np.nan, np.float32), 1)


def test_a_training_image_is_nearest_to_itself_and_read_once(photos, own_cache):
    before = hashes(photos)
    card = card_for(photos)
    said = []
    index = neighbours_of_training(ENGINE, NETWORK, card, announce=said.append)
    train = open_dataset(photos).train
    assert index.paths == tuple(str(photos / train.key(i)) for i in range(len(train)))
    assert any("kept in the cache" in line for line in said)
    for i in (0, 7, 20):
        tensor = preprocess.tensor(Path(index.paths[i]).read_bytes(), card.images)[None]
        nearest = index.nearest(ENGINE.representation(tensor), 3)[0]
        assert nearest[0].cosine > 0.999
        assert index.paths[i] in [similar.path for similar in nearest if similar.cosine > 0.9999]
        assert nearest[0].label == Path(nearest[0].path).parent.name
    assert hashes(photos) == before
    neighbours._read.cache_clear()
    shutil.rmtree(photos)  # what is kept needs no image
    again = neighbours_of_training(ENGINE, NETWORK, card, announce=silent)
    assert again.paths == index.paths
    np.testing.assert_array_equal(again.vectors, index.vectors)
    assert missing([Similar(path=index.paths[0], label="", cosine=1.0)]) == 1
    assert missing([Similar(path="digits/12", label="", cosine=1.0)]) == 0


def test_other_weights_are_another_index(photos, own_cache):
    card = card_for(photos)
    first = neighbours_of_training(ENGINE, NETWORK, card, announce=str)
    other = randomised(SPEC, seed=5).float()
    engine = TorchEngine(other, torch.device("cpu"), "fp32")
    second = neighbours_of_training(engine, other, card, announce=str)
    assert np.abs(first.vectors - second.vectors).max() > 0.1


def test_images_that_moved_changed_or_were_never_named(photos, own_cache, tmp_path):
    card = card_for(photos)
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"cannot be opened.*--similar-to"):
        neighbours_of_training(ENGINE, NETWORK, card, announce=silent)
    moved = neighbours_of(ENGINE, NETWORK, card, str(tmp_path / "elsewhere"), announce=str)
    assert len(moved.paths) == 36
    (tmp_path / "elsewhere").rename(photos)
    next(photos.rglob("*.jpg")).unlink()
    said = []
    neighbours_of_training(ENGINE, NETWORK, card, announce=said.append)
    assert any("changed since the training" in line for line in said)
    bare = Card(model=SPEC, images=card.images, classes=card.classes)
    with pytest.raises(ModelError, match="does not say which images it learnt from"):
        neighbours_of_training(ENGINE, NETWORK, bare, announce=silent)


def test_any_folder_is_compared_with_and_looked_at_again_when_it_changes(own_cache, tmp_path):
    loose = draw_folder(tmp_path / "pool", kinds=2, each=4)
    for file in list(loose.rglob("*.jpg")):
        file.rename(loose / file.name)
    card = Card(model=SPEC, images=ImageSpec(size=SPEC.size), classes=("a", "b", "c"))
    index = neighbours_of(ENGINE, NETWORK, card, str(loose), announce=str)
    assert len(index.paths) == 8
    assert set(index.labels) == {""}
    again = neighbours_of(ENGINE, NETWORK, card, str(loose), announce=silent)
    assert again.paths == index.paths
    (loose / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    said = []
    more = neighbours_of(ENGINE, NETWORK, card, str(loose), announce=said.append)
    assert len(more.paths) == 8
    assert any("1 images to compare with cannot be read" in line for line in said)
    with pytest.raises(DataError):
        neighbours_of(ENGINE, NETWORK, card, str(tmp_path / "none"), announce=silent)


def test_of_too_many_some_are_drawn(photos, own_cache, monkeypatch):
    monkeypatch.setattr(neighbours, "MOST", 10)
    card = card_for(photos)
    said = []
    index = neighbours_of_training(ENGINE, NETWORK, card, announce=said.append)
    assert len(index.paths) == 10
    assert index.among == len(open_dataset(photos).train)
    assert any("10 of" in line for line in said)


def test_a_damaged_or_unwritable_cache_costs_time_alone(photos, own_cache, monkeypatch):
    card = card_for(photos)
    first = neighbours_of_training(ENGINE, NETWORK, card, announce=str)
    (file,) = (own_cache / "neighbours").iterdir()
    neighbours._read.cache_clear()
    file.write_bytes(file.read_bytes()[:100])
    assert neighbours_of_training(ENGINE, NETWORK, card, announce=str).paths == first.paths
    blocked = own_cache.parent / "a file"
    blocked.write_text("")
    monkeypatch.setenv("VITRAL_CACHE", str(blocked))
    said = []
    again = neighbours_of_training(ENGINE, NETWORK, card, announce=said.append)
    assert again.paths == first.paths
    assert any("is not kept" in line for line in said)
    assert cache.folder() == blocked


def test_names_of_any_kind_come_back(own_cache, tmp_path):
    folder = draw_folder(tmp_path / "photos", kinds=1, each=3)
    (kind,) = folder.iterdir()
    names = ['a "b"', "<b>&x", "참새\n2"]
    for name, file in zip(names, sorted(kind.iterdir()), strict=True):
        (folder / name).mkdir()
        file.rename(folder / name / f"{name}.jpg")
    kind.rmdir()
    card = Card(model=SPEC, images=ImageSpec(size=SPEC.size), classes=("a", "b", "c"))
    neighbours_of(ENGINE, NETWORK, card, str(folder), announce=str)
    neighbours._read.cache_clear()
    index = neighbours_of(ENGINE, NETWORK, card, str(folder), announce=silent)
    assert sorted(index.labels) == sorted(names)
    assert all(Path(path).is_file() for path in index.paths)
