"""Classes that a mirror turns into one another are found, and no others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from drawn import arrow
from vitral.data.datasets import open_dataset
from vitral.data.sources import Arrays, Split
from vitral.evaluation.mirror import Mirror, look_in_the_mirror, mirrored_mistakes
from vitral.evaluation.score import Prediction
from vitral.specs import ImageSpec

SPEC = ImageSpec(size=(32, 32))
CLASSES = ("down", "left", "right", "up")


def drawn(each: int, classes: tuple[str, ...] = CLASSES) -> Split:
    random = np.random.default_rng(0)
    labels = np.tile(np.arange(len(classes)), each)
    images = np.stack([arrow(classes[label], random) for label in labels])
    keys = tuple(map(str, range(len(images))))
    return Split("train", labels, np.arange(len(labels)), Arrays(images, keys))


@pytest.fixture(scope="module")
def split() -> Split:
    return drawn(50)


def test_left_and_right_are_found_and_up_and_down_are_not(split):
    found = look_in_the_mirror(split, CLASSES, SPEC)
    assert found is not None and found == look_in_the_mirror(split, CLASSES, SPEC)
    (pair,) = found.pairs
    assert (pair.first, pair.second, pair.images) == ("left", "right", 100)
    assert min(pair.told_apart, pair.swapped) > 0.65
    assert "'left' and 'right'" in found.sentence and "--set augment.flip=0" in found.sentence


def test_as_one_of_several_labels_they_are_found_too(split):
    labels = np.zeros((len(split), 5), dtype=bool)
    labels[np.arange(len(split)), split.labels] = True
    labels[::3, 4] = True  # beside the direction
    found = look_in_the_mirror(replace(split, labels=labels), (*CLASSES, "other"), SPEC)
    assert found is not None
    assert [(pair.first, pair.second) for pair in found.pairs] == [("left", "right")]


def test_pictures_without_a_side_are_not_spoken_of(split):
    upright = split.select(np.flatnonzero(np.isin(split.labels, (0, 3))))
    relabelled = replace(upright, labels=(upright.labels == 3).astype(np.int64))
    found = look_in_the_mirror(relabelled, ("down", "up"), SPEC)
    assert found is not None and found.pairs == () and found.sentence == ""
    assert found.accuracy > 0.8 and found.mirrored > 0.8
    noise = look_in_the_mirror(
        replace(split, labels=np.random.default_rng(5).permutation(split.labels)), CLASSES, SPEC
    )
    assert noise is not None and noise.sentence == ""


def test_digits_look_otherwise_in_a_mirror():
    data = open_dataset("digits")
    few = data.train.select(np.arange(400))
    found = look_in_the_mirror(few, data.classes, ImageSpec(size=(24, 24)))
    assert found is not None and found.accuracy > 0.9 and found.mirrored < 0.5
    only = Mirror(pairs=(), images=found.images, accuracy=0.9, mirrored=0.4)
    assert "look otherwise in a mirror" in only.sentence
    assert Mirror(pairs=(), images=50, accuracy=0.9, mirrored=0.8).sentence == ""


def test_nothing_is_said_of_few_images_of_none_and_of_those_far_away(split):
    assert look_in_the_mirror(drawn(11), CLASSES, SPEC) is None
    assert look_in_the_mirror(split, ("one",), SPEC) is None
    far = replace(split, shards=np.zeros(len(split), dtype=np.int64))
    assert look_in_the_mirror(far, CLASSES, SPEC) is None
    unlabelled = replace(split, labels=np.full(len(split), -1))
    assert look_in_the_mirror(unlabelled, CLASSES, SPEC) is None


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_grey_and_long_pictures_are_looked_at_too(fit):
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (48, 9, 400, 3), np.uint8)
    keys = tuple(map(str, range(48)))
    split = Split("train", np.arange(48) % 2, np.arange(48), Arrays(images, keys))
    found = look_in_the_mirror(split, ("a", "b"), replace(SPEC, fit=fit))
    assert found is not None and found.sentence == "" and found.images == 48
    flat = Split("train", np.arange(48) % 2, np.arange(48), Arrays(images * 0, keys))
    found = look_in_the_mirror(flat, ("a", "b"), SPEC)
    assert found is not None and found.sentence == ""


def test_mistakes_between_mirrored_classes_are_counted():
    def answer(label: str, guess: str) -> Prediction:
        return Prediction(key="x", labels=(label,), predicted=(guess,), score=0.5)

    answers = [answer("left", "right"), answer("right", "left"), answer("up", "left")]
    answers.append(answer("up", "up"))
    said = mirrored_mistakes(answers, [("left", "right")])
    assert said is not None and said.startswith("2 of 3 mistakes") and "'left' and 'right'" in said
    assert mirrored_mistakes(answers, []) is None
    assert mirrored_mistakes(answers[2:], [("left", "right")]) is None
