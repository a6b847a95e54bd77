"""The schedule that --merge auto takes is measured once, on the run's own held-out images."""

from pathlib import Path

import numpy as np
import pytest

import vitral
from vitral import merging
from vitral.engines import merge_choices
from vitral.errors import DataError, UsageError
from vitral.specs.merging import merge_counts


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merging") / "run"
    vitral.train("digits", epochs=2, out=folder, device="cpu")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITRAL_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_auto_measures_once_and_keeps_half_a_point(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "LEAST_GAIN", 0.0)  # so small a network gains nothing
    said: list[str] = []
    clf = vitral.load(run, merge="auto", announce=said.append)
    assert len([line for line in said if "measuring schedules" in line]) == 1
    again: list[str] = []
    assert vitral.load(run, merge="auto", announce=again.append).merge == clf.merge
    assert not any("measuring" in line for line in again)
    plain = vitral.load(run)
    assert plain.merge == () and (clf.foreign is None) == bool(clf.merge)
    images, labels = merging._held_out(clf.card)
    assert len(images) > 100
    without, merged = (
        (each.engine.logits(images).argmax(1) == labels).mean() for each in (plain, clf)
    )
    assert merged >= without - merging.MOST_LOSS > 0.2


def test_a_network_without_its_images(run: Path, tmp_path: Path) -> None:
    clf = vitral.load(run)
    name = vitral.save(clf.model, clf.classes, clf.card.images, tmp_path / "own")
    with pytest.raises(DataError, match=r"does not say which images.*--merge 8"):
        vitral.load(name, merge="auto")
    merged = vitral.load(name, merge="4")
    assert merged.merge == merge_counts("4", clf.card.model)
    image = np.zeros((*clf.card.images.size, 3), np.uint8)
    assert merged.predict(image).label in clf.classes
    with pytest.raises(UsageError, match="without merging"):
        merged.predict(image, similar=2)
    assert merge_choices.kept("digest", "auto", "auto") is None
