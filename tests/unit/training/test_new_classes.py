"""Rows of new classes at their class means: the formula, on features whose classes are known."""

import numpy as np
import pytest

from vitral.data.sources import Arrays, Split
from vitral.training import new_classes
from vitral.training.new_classes import at_class_means
from vitral.weights.known_classes import KnownClasses

KNOWN = 6
WIDTH = 24


def images(each: int = 60, several: bool = False, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of eight classes around a common offset, as the last norm of a ViT leaves them."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(8, WIDTH)) * 2 + 5
    labels = np.repeat(np.arange(8), each)
    features = centres[labels] + rng.normal(size=(len(labels), WIDTH))
    if several:
        return features, labels[:, None] == np.arange(8)
    return features, labels


def old_head() -> tuple[np.ndarray, np.ndarray]:
    """What a softmax over the known classes learns of them: Fisher's discriminant."""
    features, labels = images(seed=3)
    means = np.stack([features[labels == k].mean(0) for k in range(KNOWN)])
    return means, -0.5 * (means**2).sum(1)


def begun(old: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    weight = np.zeros((8, WIDTH))
    bias = np.zeros(8)
    weight[:KNOWN] = old[0]
    bias[:KNOWN] = old[1]
    return weight, bias


def recalls(head: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    features, labels = images(seed=1)
    right = (features @ head[0].T + head[1]).argmax(1) == labels
    known = labels < KNOWN
    return float(right[known].mean()), float(right[~known].mean())


def test_new_classes_are_told_before_the_first_step_and_the_known_keep_their_rows() -> None:
    features, labels = images()
    old = old_head()
    weight, bias = at_class_means(features, labels, begun(old), old, [6, 7])
    assert np.array_equal(weight[:KNOWN], old[0]) and np.array_equal(bias[:KNOWN], old[1])
    known, new = recalls((weight, bias))
    assert known > 0.95 and new > 0.8
    lengths = np.linalg.norm(weight - old[0].mean(0), axis=1)
    assert lengths[6:] == pytest.approx(lengths[:KNOWN].mean(), rel=1e-9)


def test_a_shift_of_all_features_changes_no_answer() -> None:
    """What a bias can undo must not move the rows: the centre is taken off first."""
    features, labels = images()
    old = old_head()
    weight, bias = at_class_means(features, labels, begun(old), old, [6, 7])
    shift = np.full(WIDTH, 3.0)
    moved_old = (old[0], old[1] - old[0] @ shift)
    moved = at_class_means(features + shift, labels, begun(moved_old), moved_old, [6, 7])
    assert np.allclose(moved[0], weight)
    before = features @ weight.T + bias
    after = (features + shift) @ moved[0].T + moved[1]
    assert np.allclose(after - after[:, :1], before - before[:, :1])


@pytest.mark.parametrize("new", [[6, 7], [6]])
def test_without_a_picture_of_a_known_class_most_of_the_new_ones_come_through(
    new: list[int],
) -> None:
    features, labels = images()
    shown = np.isin(labels, new)
    old = old_head()
    head = at_class_means(features[shown], labels[shown], begun(old), old, new)
    answers = (features[shown] @ head[0].T + head[1]).argmax(1)
    assert 0.7 < np.isin(answers, new).mean() < 0.8
    assert recalls(head)[0] > 0.9


def test_each_of_several_labels_is_a_question_of_its_own() -> None:
    features, labels = images(several=True)
    old = old_head()
    old = (old[0] - 5, old[1] + 5 * old[0].sum(1))
    weight, bias = at_class_means(features, labels, begun(old), old, [6, 7])
    given = features @ weight.T + bias >= 0
    for k in (6, 7):
        recall = given[labels[:, k], k].mean()
        wrong = given[~labels[:, k], k].mean()
        assert recall > 0.9 and wrong < 0.1


def test_a_class_without_a_picture_gets_the_mean_row() -> None:
    features, labels = images()
    some = labels != 7
    old = old_head()
    weight, bias = at_class_means(features[some], labels[some], begun(old), old, [6, 7])
    assert np.array_equal(weight[7], old[0].mean(0)) and bias[7] == old[1].mean()


def test_of_many_known_classes_few_images_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat(np.arange(8), 60)
    rows = np.arange(len(labels))
    pixels = np.zeros((len(labels), 1, 1, 3), np.uint8)
    split = Split("train", labels, rows, Arrays(pixels, tuple(map(str, rows))))
    names = tuple("abcdefgh")
    known = KnownClasses(classes=names, old=names[:6], places=(0, 1, 2, 3, 4, 5, -1, -1))
    monkeypatch.setattr(new_classes, "MOST_IMAGES", 20)
    monkeypatch.setattr(new_classes, "MOST_KNOWN", 12)
    counts = np.bincount(new_classes._some(split, known).labels)
    assert counts.tolist() == [2] * 6 + [20] * 2
