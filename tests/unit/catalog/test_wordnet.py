"""ImageNet's identifiers: in the sorted order, with the names that ImageNet's words are."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from vitral.catalog import wordnet
from vitral.catalog.checkpoints import labels


@pytest.mark.parametrize("count", [1000, 21_841, 21_843])
def test_identifiers_are_sorted_and_names_are_told_apart(count):
    names = wordnet.names(count)
    assert list(names) == sorted(names)
    assert all(map(wordnet.is_id, names))
    assert len(names) == len(set(names.values())) == count
    assert all(name == name.strip() and name for name in names.values())


def test_known_ones():
    names = wordnet.names(1000)
    assert tuple(names.values()) == labels("imagenet-1k")
    known = {"n01440764": "tench", "n02102040": "English springer", "n02979186": "cassette player"}
    assert {key: names[key] for key in known} == known
    assert set(names) - set(wordnet.names(21_843)) == {"n04399382"}  # the teddy, which 21k lacks
    assert wordnet.names(11) == {}


def test_they_are_those_of_timm():
    spec = importlib.util.find_spec("timm")
    if spec is None or spec.origin is None:
        pytest.skip("timm is not installed")
    info = Path(spec.origin).parent / "data" / "_info"
    for file, count in [
        ("imagenet_synsets.txt", 1000),
        ("imagenet21k_goog_synsets.txt", 21_843),
        ("imagenet22k_synsets.txt", 21_841),
    ]:
        assert (info / file).read_text().split() == list(wordnet.names(count))


def test_a_model_knows_its_classes_by_identifier():
    words = labels("imagenet-1k")
    others = wordnet.other_names(words)
    assert others["n01440764"] == "tench"
    assert len(others) == 1000
    longer = tuple(f"{word}, and what else it is called" for word in words)  # as transformers
    assert wordnet.other_names(longer)["n01440764"] == longer[0]
    assert wordnet.other_names(["n01440764", "n02102040"]) == {
        "tench": "n01440764",
        "English springer": "n02102040",
    }
    assert wordnet.other_names(["cat", "dog"]) == {}
    assert wordnet.other_names([f"thing {i}" for i in range(1000)]) == {}
    assert wordnet.other_names([]) == {}
