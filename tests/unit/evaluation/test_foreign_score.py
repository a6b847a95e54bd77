import numpy as np
import pytest
from features import drawn
from sklearn.metrics import roc_auc_score

from vitral.errors import DataError
from vitral.evaluation import foreign
from vitral.evaluation.drift import compare_with_held_out
from vitral.evaluation.foreign import ForeignDetector
from vitral.evaluation.foreign_score import Signals, auroc, score_foreign


def detector() -> ForeignDetector:
    confidences = np.random.default_rng(0).uniform(0.4, 1, 200)
    made = foreign.fit(drawn(60, 1), drawn(50, 2), confidences)
    assert made is not None
    return made


def signals(own: float, strange: float, count: int, seed: int) -> Signals:
    """Distances around `own`, a share of `strange` of them far away."""
    random = np.random.default_rng(seed)
    far = random.uniform(size=count) < strange
    return Signals(
        distances=random.normal(own, 0.15, count) + 3 * far,
        confidences=random.uniform(0.4, 1, count),
    )


def test_the_area_is_that_of_scikit_learn_and_its_interval_holds_what_it_should() -> None:
    random = np.random.default_rng(1)
    inside = 0
    truth = 0.7602  # of normals one deviation apart
    for _ in range(200):
        own = random.normal(0, 1, 60)
        strange = random.normal(1, 1, 40)
        value, (low, high) = auroc(own, strange)
        labels = np.repeat([0, 1], [60, 40])
        assert value == pytest.approx(roc_auc_score(labels, np.concatenate([own, strange])))
        inside += low <= truth <= high
    assert 180 <= inside <= 198


def test_ties_and_perfect_order_have_an_interval_too() -> None:
    assert auroc(np.zeros(4), np.zeros(5))[0] == 0.5
    value, (low, high) = auroc(np.zeros(40), np.ones(20))
    assert (value, high) == (1.0, 1.0) and 0.8 < low < 0.9
    assert auroc(np.zeros(1), np.ones(1))[1][0] < 0.5


def test_shares_are_counted_at_the_limits_of_the_fit() -> None:
    made = detector()
    own = Signals(distances=np.array([0.5, 0.9, 1.2]), confidences=np.array([0.9, 0.8, 0.1]))
    strange = Signals(distances=np.array([2.0, 0.9, 3.0, 1.5]), confidences=np.full(4, 0.99))
    score = score_foreign(made, own, strange, 0.95)
    assert score.distance.kept == pytest.approx(2 / 3)
    assert score.distance.accepted == 0.25
    assert score.probability.accepted == 1.0 and score.probability.kept == pytest.approx(2 / 3)
    assert score.probability.auroc == 0.0
    assert (score.surely_answered, score.surely_answered_before) == (0.25, 1.0)
    assert score_foreign(made, own, strange).surely_answered is None
    assert any("25.0 % of the foreign images get a sure answer" in line for line in score.lines())


def test_images_as_before_have_not_drifted_and_others_have() -> None:
    made = detector()
    same = Signals(
        distances=made.held_out.astype(float), confidences=made.confidences.astype(float)
    )
    drift = compare_with_held_out(made, same, 0.7)
    assert not drift.drifted and "No difference" in drift.sentence
    assert drift.shares["foreign"].share == pytest.approx(0.05)
    assert set(drift.shares) == {"foreign", "sure", "unsure"}
    assert sum(share.count for share in drift.shares.values()) == 200
    half = signals(0.6, 0.5, 60, 3)
    drift = compare_with_held_out(made, half, 0.7)
    assert drift.drifted and "differ" in drift.sentence
    assert drift.shares["foreign"].share > 0.3
    assert set(compare_with_held_out(made, half, None).shares) == {"foreign", "own"}
    assert "drifted" in drift.to_dict() and drift.to_dict()["shares"]["foreign"]["count"] > 18


def test_alarms_are_as_rare_as_said() -> None:
    made = detector()
    random = np.random.default_rng(5)
    alarms = 0
    for _ in range(200):
        rows = random.choice(200, 40)
        some = Signals(
            distances=made.held_out[rows].astype(float),
            confidences=made.confidences[rows].astype(float),
        )
        alarms += compare_with_held_out(made, some, 0.7).drifted
    assert alarms <= 8


def test_too_few_images_are_answered() -> None:
    with pytest.raises(DataError, match="9 images tell nothing"):
        compare_with_held_out(detector(), signals(0.5, 0.0, 9, 1), 0.7)
