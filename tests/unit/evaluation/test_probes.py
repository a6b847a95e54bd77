"""The heads that are solved for against explicit solvers and scikit-learn's own predictions."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import t
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vitral.errors import DataError, ModelError, UsageError
from vitral.evaluation import probes
from vitral.evaluation.intervals import wilson
from vitral.evaluation.probes import (
    ProbeResult,
    answers,
    least_squares,
    logistic,
    nearest,
    possible_shots,
    probe_lines,
    probe_score,
    supports,
)


def clouds(classes: int, each: int, width: int = 24, spread: float = 0.6, seed: int = 0):
    random = np.random.default_rng(seed)
    centres = random.normal(0, 1, (classes, width))
    labels = np.arange(classes * each) % classes
    features = centres[labels] + spread * random.normal(0, 1, (len(labels), width))
    return (features * random.uniform(0.01, 30, width) + 100).astype(np.float32), labels


def ready(features, support):
    """Whitened by the support, with the constant beside them: written out once more."""
    mean, deviation = support.astype(float).mean(0), support.astype(float).std(0) + 1e-5
    return np.hstack([(features - mean) / deviation, np.full((len(features), 1), 100.0)])


def explicit(support, labels, test, classes, form):
    """Scores (M, classes) by the normal equations (primal) or by those of the dual."""
    x, y = ready(support, support), 2.0 * np.eye(classes)[labels] - 1
    if form == "primal":
        w = np.linalg.inv(x.T @ x + 1024 * np.eye(x.shape[1])) @ x.T @ y
    else:
        w = x.T @ np.linalg.inv(x @ x.T + 1024 * np.eye(len(x))) @ y
    return ready(test, support) @ w


@pytest.mark.parametrize("each", [1, 5, 8, 40])  # 24 features and the bias: 25 columns
@pytest.mark.parametrize("form", ["primal", "dual"])
def test_the_closed_form_is_that_of_the_paper(each: int, form: str) -> None:
    features, labels = clouds(3, each + 20, spread=2.0)
    support, test = slice(0, 3 * each), slice(3 * each, None)
    weight, bias = least_squares(features[support], labels[support], 3)
    assert weight.shape == (3, 24) and weight.dtype == bias.dtype == np.float64
    scores = features[test] @ weight.T + bias
    expected = explicit(features[support], labels[support], features[test], 3, form)
    np.testing.assert_allclose(scores, expected, atol=1e-8)
    assert (answers(features[test], (weight, bias)) == expected.argmax(1)).all()


def test_both_forms_where_they_meet() -> None:
    """24 or 25 images of 24 features and a bias take the two ways, with nothing between them."""
    features, labels = clouds(2, 40)
    for count in (24, 25, 26):
        weight, bias = least_squares(features[:count], labels[:count], 2)
        for form in ("primal", "dual"):
            expected = explicit(features[:count], labels[:count], features, 2, form)
            np.testing.assert_allclose(features @ weight.T + bias, expected, atol=1e-8)


def test_the_closed_form_minimises_the_penalised_squares() -> None:
    """scikit-learn's own ridge regression without an intercept, on the ready columns."""
    features, labels = clouds(4, 30)
    weight, bias = least_squares(features, labels, 4)
    theirs = Ridge(alpha=1024, fit_intercept=False, solver="svd")
    theirs.fit(ready(features, features), 2.0 * np.eye(4)[labels] - 1)
    expected = theirs.predict(ready(features, features))
    np.testing.assert_allclose(features @ weight.T + bias, expected, atol=1e-8)


def test_the_bias_is_hardly_penalised_and_the_penalty_does_not_grow_with_the_images() -> None:
    """Of one feature that tells nothing, the score is the mean target, shrunk by 1024 alone."""
    for count in (8, 800):
        labels = (np.arange(count) % 4 > 0).astype(np.int64)
        _, bias = least_squares(np.ones((count, 1), np.float32), labels, 2)
        shrunk = count * 100**2 / (count * 100**2 + 1024)
        np.testing.assert_allclose(bias, np.array([-0.5, 0.5]) * shrunk, atol=1e-9)


def test_a_feature_that_never_varies_is_no_trouble() -> None:
    features, labels = clouds(2, 10, spread=0.1)
    features[:, 3] = 0.1
    head = least_squares(features, labels, 2)
    assert (answers(features, head) == labels).all()
    np.testing.assert_allclose(
        features @ head[0].T + head[1], explicit(features, labels, features, 2, "dual"), atol=1e-8
    )


def test_answers_of_many_rows_come_in_pieces(monkeypatch) -> None:
    features, labels = clouds(3, 20)
    head = least_squares(features, labels, 3)
    whole = answers(features, head)
    monkeypatch.setattr(probes, "_ROWS", 7)
    assert (answers(features, head) == whole).all()


def test_supports_are_seeded_and_more_hold_the_fewer() -> None:
    labels = np.random.default_rng(0).integers(-1, 5, 300)  # -1: cannot be read
    drawn = supports(labels, 5, (1, 5, 25), seed=3)
    again = supports(labels, 5, (25, 1), seed=3)
    for count, rows in drawn.items():
        assert np.bincount(labels[rows], minlength=5).tolist() == [count] * 5
        assert len(set(rows.tolist())) == 5 * count
    assert (again[25] == drawn[25]).all() and (again[1] == drawn[1]).all()
    assert set(drawn[1].tolist()) < set(drawn[5].tolist()) < set(drawn[25].tolist())
    others = [supports(labels, 5, (5,), seed=seed)[5] for seed in (0, 1, 2)]
    assert len({tuple(sorted(rows.tolist())) for rows in others}) == 3
    every = np.concatenate([supports(labels, 5, (1,), seed)[1][:1] for seed in range(1000)])
    assert len(set(every.tolist())) == (labels == 0).sum()  # each image of a class may be drawn


def test_shots_that_a_class_has_no_images_for() -> None:
    labels = np.repeat([0, 1, 2], [30, 7, 12])
    possible, notes = possible_shots(labels, ("a", "b", "c"), (25, 5, 1, 10))
    assert possible == (1, 5)
    assert notes == ("10 and 25 shots are left out: class 'b' has 7 readable training images.",)
    assert possible_shots(labels, ("a", "b", "c"), (7,)) == ((7,), ())
    with pytest.raises(DataError, match=r"class 'b' has 7 .* at most 7 shots"):
        possible_shots(labels, ("a", "b", "c"), (8, 10))
    with pytest.raises(DataError, match=r"class 'none' has 0 .* remove the class"):
        possible_shots(labels, ("a", "b", "c", "none"), (1,))
    for wrong in ((), (0,), (5, -1)):
        with pytest.raises(UsageError, match="at least 1"):
            possible_shots(labels, ("a", "b", "c"), wrong)


@pytest.mark.parametrize("each", [2, 60])  # fewer than 20 neighbours, and more
def test_nearest_is_the_weighted_vote(each: int) -> None:
    features, labels = clouds(4, each, spread=2.5)
    features -= features.mean(0)
    test, _ = clouds(4, 30, spread=2.5, seed=1)
    test -= test.mean(0)
    similar = cosine_similarity(test.astype(float), features.astype(float))
    votes = np.zeros((len(test), 4))
    for row, values in enumerate(similar):
        for i in np.argsort(-values)[:20]:
            votes[row, labels[i]] += np.exp(values[i] / 0.07)
    guess = nearest(features, labels, test)
    assert (guess == votes.argmax(1)).all()
    assert len(set(guess.tolist())) == 4
    # the length of a vector does not count, and the vote is not that of equals
    assert (nearest(features * 7, labels, test * 0.2) == guess).all()
    equal = np.array([np.bincount(labels[np.argsort(-v)[:20]], minlength=4) for v in similar])
    assert (equal.argmax(1) != guess).any()


def test_the_interval_holds_draws_and_images() -> None:
    alone = probe_score([0.8], 100)
    assert alone.interval == pytest.approx(wilson(80, 100))
    assert alone.shots is None and alone.accuracy == 0.8
    three = probe_score([0.7, 0.8, 0.9], 10**9, shots=5)
    half = t.ppf(0.975, 2) * np.std([0.7, 0.8, 0.9], ddof=1) / 3**0.5
    assert three.interval == pytest.approx((0.8 - half, min(1.0, 0.8 + half)), abs=1e-4)
    both = probe_score([0.79, 0.8, 0.81], 100)
    half = t.ppf(0.975, 2) * 0.01 / 3**0.5
    low, high = wilson(80, 100)
    assert both.interval[0] == pytest.approx(0.8 - np.hypot(0.8 - low, half))
    assert both.interval[1] == pytest.approx(0.8 + np.hypot(high - 0.8, half))
    for edge in (0.0, 1.0):
        low, high = probe_score([edge] * 3, 50).interval
        assert 0 <= low < high <= 1


def test_the_result_as_json_and_on_a_terminal() -> None:
    scores = (probe_score([0.5, 0.6, 0.55], 200, 1), probe_score([0.7, 0.8, 0.75], 200, 5))
    result = ProbeResult(
        kind="fewshot", classes=3, support=45, samples=200, scores=scores, notes=("a note.",)
    )
    values = result.to_dict()
    assert values["probe"] == "fewshot" and values["accuracy"] == pytest.approx(0.75)
    assert [score["shots"] for score in values["scores"]] == [1, 5]
    assert values["interval"] == list(values["scores"][1]["interval"])
    lines = list(probe_lines(result))
    assert lines[0] == "fewshot   3 classes, 45 training images, 200 test images"
    assert lines[1].startswith("1 shot    55.00 %  (95 %: ") and "50.00, 60.00, 55.00" in lines[1]
    assert lines[-1] == "a note."
    linear = replace(result, kind="linear", scores=(probe_score([0.5], 200),), notes=())
    assert list(probe_lines(linear))[1] == "accuracy  50.00 %  (95 %: 43.14 to 56.86)"


@pytest.mark.parametrize("classes", [2, 5])
def test_the_head_answers_as_scikit_learn_does(classes: int, monkeypatch) -> None:
    """Of one strength: its own scaler and solver on the raw features, in float64."""
    monkeypatch.setattr(probes, "STRENGTHS", (1.0,))
    features, labels = clouds(classes, 40, spread=1.5)
    weight, bias = logistic(features, labels, classes)
    assert weight.dtype == bias.dtype == np.float32
    inside = LogisticRegression(C=1.0 / 24, tol=1e-8, max_iter=5000)  # unit deviation, not norm
    theirs = make_pipeline(StandardScaler(), inside).fit(features.astype(np.float64), labels)
    logits = features @ weight.T + bias
    expected = theirs.predict_log_proba(features)
    np.testing.assert_allclose(log_softmax(logits, axis=1), expected, atol=2e-3)


def test_real_digits() -> None:
    digits = load_digits()
    features, labels = digits.data.astype(np.float32), digits.target
    guess = answers(features[1000:], logistic(features[:1000], labels[:1000], 10))
    theirs = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    theirs.fit(features[:1000], labels[:1000])
    assert (guess == labels[1000:]).mean() >= theirs.score(features[1000:], labels[1000:]) - 0.005


def test_the_strength_follows_the_data() -> None:
    easy, labels = clouds(4, 30, spread=0.05)
    random = np.random.default_rng(1)
    hopeless = random.normal(0, 1, easy.shape).astype(np.float32)
    sizes = [np.abs(logistic(x, labels, 4)[0] * x.std(axis=0)).max() for x in (easy, hopeless)]
    assert sizes[0] > 10 * sizes[1]  # what cannot be learnt is hardly listened to


def test_the_same_head_twice() -> None:
    features, labels = clouds(3, 20)
    one, other = logistic(features, labels, 3), logistic(features.copy(), labels.copy(), 3)
    assert all((a == b).all() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("each", [1, 2])
def test_few_images_of_a_class(each: int) -> None:
    features, labels = clouds(6, each)
    assert (answers(features, logistic(features, labels, 6)) == labels).all()


def test_one_class_with_a_single_image_among_full_ones() -> None:
    features, labels = clouds(3, 20, spread=0.2)
    kept = np.flatnonzero((labels != 2) | (np.arange(60) == 2))
    solved = logistic(features[kept], labels[kept], 3)
    assert (answers(features[kept], solved) == labels[kept]).all()


def test_a_class_without_an_image_is_never_answered() -> None:
    features, labels = clouds(3, 20)
    elsewhere = np.array([4, 1, 2])[labels]  # of six classes, 0, 3 and 5 have none
    weight, bias = logistic(features, elsewhere, 6)
    assert (answers(features, (weight, bias)) == elsewhere).mean() > 0.95
    far = np.random.default_rng(0).normal(100, 1000, (500, 24)).astype(np.float32)
    logits = far.astype(np.float64) @ weight.T + bias
    assert log_softmax(logits, axis=1)[:, [0, 3, 5]].max() < -9.9
    below = logits[:, [4, 1, 2]].mean(axis=1) - logits[:, 3]
    np.testing.assert_allclose(below, 10, atol=0.02)  # of logits in the thousands


def test_a_single_class_and_a_feature_that_never_varies() -> None:
    features, labels = clouds(2, 10)
    features[:, 3] = 7.0
    weight, _ = solved = logistic(features, labels, 2)
    assert (weight[:, 3] == 0).all()
    assert (answers(features, solved) == labels).all()
    alone = logistic(features, np.ones(20, np.int64), 3)
    assert (answers(features, alone) == 1).all()


def test_many_images_choose_the_strength_on_some(monkeypatch) -> None:
    monkeypatch.setattr(probes, "MOST_TO_CHOOSE", 60)
    features, labels = clouds(4, 200)
    assert (answers(features, logistic(features, labels, 4)) == labels).mean() > 0.97


def test_nothing_and_numbers_that_are_none() -> None:
    features, labels = clouds(2, 3)
    for solve in (logistic, least_squares):
        with pytest.raises(DataError, match="without images"):
            solve(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), 2)
        broken = features.copy()
        broken[0, 0] = np.nan
        with pytest.raises(ModelError, match="not finite"):
            solve(broken, labels, 2)
        with pytest.raises(ModelError, match="not finite"):
            nearest(broken, labels, features)
