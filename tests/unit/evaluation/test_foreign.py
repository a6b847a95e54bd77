from dataclasses import replace

import numpy as np
import pytest
from features import CLASSES, EARLY, WIDTH, drawn, several
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors

from vitral.errors import ModelError, WeightsError
from vitral.evaluation import foreign
from vitral.evaluation.foreign import ForeignDetector, Sample


def fitted(learnt: Sample, held_out: Sample) -> ForeignDetector:
    detector = foreign.fit(learnt, held_out, np.full(len(held_out.labels), 0.5))
    assert detector is not None
    return detector


def test_what_lies_between_the_classes_is_foreign_and_own_images_are_kept() -> None:
    detector = fitted(drawn(60, 1), drawn(50, 2))
    assert detector.kind == "mahalanobis"  # noise that tells nothing drowns the others
    assert detector.auroc["mahalanobis"] > detector.auroc["neighbours"]
    own = detector.distances(drawn(50, 3).detector_features)
    assert (own > 1).mean() < 0.12
    strange = drawn(50, 4).detector_features
    strange[:, :WIDTH] = np.random.default_rng(4).normal(0, 4, (200, WIDTH))
    assert (detector.distances(strange) > 1).mean() > 0.9
    assert np.isfinite(detector.distances(1e6 * strange)).all()


def test_the_limit_keeps_95_of_100_held_out_images() -> None:
    held_out = drawn(50, 2)
    detector = fitted(drawn(60, 1), held_out)
    distances = detector.distances(held_out.detector_features)
    assert (distances > 1).sum() == 10
    assert np.allclose(detector.held_out, np.sort(distances), rtol=1e-5)
    for count in (1, 2, 7):
        few = Sample(
            features=held_out.features[:count],
            logits=held_out.logits[:count],
            labels=held_out.labels[:count],
            patches=held_out.patches[:count],
        )
        assert not (fitted(drawn(60, 1), few).distances(few.detector_features) > 1).any()


@pytest.mark.parametrize("name", ["early", "deviation", "late", "last"])
def test_what_differs_in_its_patches_alone_is_foreign(name: str) -> None:
    detector = fitted(drawn(60, 1), drawn(50, 2))
    assert list(detector.patches) == ["early", "deviation", "late", "last"]
    first, end = foreign._PATCH_COLUMNS[name]
    strange = drawn(50, 3).detector_features
    strange[:, WIDTH + first * EARLY : WIDTH + end * EARLY] += 15
    assert (detector.distances(strange) > 1).all()


def test_networks_without_patches_and_older_detectors_have_fewer_distances() -> None:
    bare = [replace(drawn(60, seed), patches=np.zeros((240, 0), np.float32)) for seed in (1, 2)]
    assert not fitted(*bare).patches
    arrays = fitted(drawn(60, 1), drawn(50, 2)).to_arrays()
    old = {k: v for k, v in arrays.items() if k.split(".")[0] not in ("deviation", "late", "last")}
    detector = ForeignDetector.from_arrays(old, WIDTH)
    sample = drawn(20, 3)
    early = detector.patches["early"].distances(sample.patches[:, :EARLY])
    expected = (detector.head.distances(sample.features) + early) / detector.limit
    assert np.array_equal(detector.distances(sample.detector_features), expected)


def test_late_and_last_are_one_distance_under_a_covariance_in_blocks() -> None:
    learnt, held_out, sample = drawn(60, 1), drawn(50, 2), drawn(20, 3)
    parts = fitted(learnt, held_out).patches
    assert parts["late"].spread == parts["last"].spread
    squares = np.zeros(len(sample.labels))
    for name in ("late", "last"):
        first, end = foreign._PATCH_COLUMNS[name]
        columns = slice(first * EARLY, end * EARLY)
        model = LedoitWolf().fit(learnt.patches[:, columns])
        squares += model.mahalanobis(sample.patches[:, columns]) / parts[name].spread ** 2
    total = foreign._patch_distances(parts, sample.patches)
    for name in ("early", "deviation"):
        first, end = foreign._PATCH_COLUMNS[name]
        total -= parts[name].distances(sample.patches[:, first * EARLY : end * EARLY])
    assert np.allclose(total, np.sqrt(squares), rtol=1e-3)


def test_the_distances_are_those_of_scikit_learn() -> None:
    sample = drawn(60, 1)
    means = np.stack([sample.features[sample.labels == k].mean(axis=0) for k in range(CLASSES)])
    model = LedoitWolf(assume_centered=True).fit(sample.features - means[sample.labels])
    spaces = {p.kind: p for p in foreign._spaces(sample.features, sample.labels)}
    test = drawn(10, 5).features
    theirs = np.min([model.mahalanobis(test - mean) for mean in means], axis=0)
    assert np.allclose(spaces["mahalanobis"].distances(test) ** 2, theirs, rtol=1e-3)
    whole = LedoitWolf().fit(sample.features)
    assert np.allclose(spaces["gaussian"].distances(test) ** 2, whole.mahalanobis(test), rtol=1e-3)
    unit = sample.features / np.linalg.norm(sample.features, axis=1, keepdims=True)
    neighbours = NearestNeighbors(n_neighbors=10).fit(unit)
    away, _ = neighbours.kneighbors(test / np.linalg.norm(test, axis=1, keepdims=True))
    assert np.allclose(spaces["neighbours"].distances(test), away[:, 9], atol=1e-5)


@pytest.mark.parametrize("each", [1, 2, 3])
def test_a_few_images_and_features_wider_than_they_are_many(each: int) -> None:
    detector = fitted(drawn(each, 1), drawn(each, 2))
    assert np.isfinite(detector.distances(drawn(5, 3).detector_features)).all()
    if each == 1:  # no deviation within a class
        assert detector.kind in ("gaussian", "neighbours")


def test_two_classes_and_a_single_one() -> None:
    detector = fitted(drawn(40, 1, classes=2), drawn(40, 2, classes=2))
    assert set(detector.auroc) == set(foreign.KINDS)
    alone = fitted(drawn(40, 1, classes=1), drawn(40, 2, classes=1))
    assert alone.auroc == {}
    assert (alone.distances(drawn(40, 3, classes=1).detector_features) > 1).mean() < 0.2


def test_several_labels_have_no_class_means() -> None:
    detector = fitted(several(drawn(40, 1)), several(drawn(40, 2)))
    assert detector.kind in ("gaussian", "neighbours")
    assert set(detector.auroc) == {"gaussian", "neighbours"}


def test_features_that_tell_nothing_and_damaged_ones() -> None:
    sample = drawn(10, 1)
    same = replace(sample, features=np.ones_like(sample.features))
    assert foreign.fit(same, same, np.ones(len(same.labels))) is None
    sample.features[3, 2] = np.nan
    with pytest.raises(ModelError, match="not finite"):
        foreign.fit(sample, same, np.ones(len(same.labels)))


def test_no_more_images_are_looked_at_than_said_and_evenly_many_of_each_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = np.repeat(np.arange(3), [500, 40, 7])
    assert foreign.chosen_rows(labels, by_class=True).tolist() == list(range(547))
    monkeypatch.setattr(foreign, "MOST_IMAGES", 60)
    rows = foreign.chosen_rows(labels, by_class=True)
    assert np.bincount(labels[rows]).tolist() == [27, 26, 7]
    assert (np.diff(rows) > 0).all()
    assert np.array_equal(rows, foreign.chosen_rows(labels, by_class=True))
    alike = foreign.chosen_rows(labels, by_class=False)
    assert len(alike) == 60 and np.bincount(labels[alike])[0] > 45


def test_matrices_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "MOST_VALUES", WIDTH * 3)  # no covariance, three images
    # the early features are narrower, and keep theirs
    detector = fitted(drawn(60, 1), drawn(50, 2))
    assert detector.kind == "neighbours"
    assert detector.head.space.points.shape == (3, WIDTH)


def test_arrays_go_and_come_back() -> None:
    for each in (1, 60):
        detector = fitted(drawn(each, 1), drawn(50, 2))
        arrays = detector.to_arrays()
        back = ForeignDetector.from_arrays(arrays, WIDTH)
        features = drawn(20, 3).detector_features
        assert np.array_equal(back.distances(features), detector.distances(features))
        assert back.to_dict() == detector.to_dict()
        assert all(isinstance(array, np.ndarray) for array in arrays.values())


def test_arrays_that_cannot_be_are_refused() -> None:
    arrays = fitted(drawn(60, 1), drawn(50, 2)).to_arrays()
    cases = (
        ({"head.points": arrays["head.points"][0]}, "shape"),
        ({"head.neighbours": np.array(9)}, "between 1 and 4"),
        ({"limit": np.array(0.0)}, "limit"),
        ({"head.centre": arrays["head.centre"] * np.nan}, "finite"),
        ({"head.kind": np.array(7)}, "kind"),
        ({"early.spread": np.array(0.0)}, "spread"),
        ({"head.projection": arrays["head.projection"][:, :2]}, "shape"),
        ({"strange": np.array(7)}, "strange"),
        ({"other.kind": np.array(7)}, "other"),
    )
    for change, match in cases:
        with pytest.raises(WeightsError, match=match):
            ForeignDetector.from_arrays(arrays | change, WIDTH)
    with pytest.raises(WeightsError, match="another width than 13"):
        ForeignDetector.from_arrays(arrays, WIDTH + 1)
