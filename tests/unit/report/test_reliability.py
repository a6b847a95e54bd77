"""The slider's numbers against numpy, and the diagram against its bins."""

from xml.etree import ElementTree

import numpy as np
import pytest

from vitral.evaluation import evaluate_single_label
from vitral.report import reliability
from vitral.report.translations import translations

ENGLISH = translations("en")


def predictions(samples=500, seed=0):
    random = np.random.default_rng(seed)
    labels, logits = np.arange(samples) % 4, random.normal(0, 1.5, (samples, 4))
    logits[np.arange(samples), labels] += 1.5
    return evaluate_single_label(logits, labels, "abcd", [str(i) for i in range(samples)])


@pytest.mark.parametrize("threshold", [None, 0.0, 0.5, 0.731234])
def test_every_position_says_what_numpy_says(threshold):
    rows = predictions().predictions
    found = reliability.coverage_curve(rows, threshold)
    scores = np.round([p.score for p in rows], 6)
    right = np.array([p.correct for p in rows])
    assert len(found.thresholds) == 1001 + (threshold == 0.731234)
    assert found.thresholds[found.start] == (threshold or 0)
    for index in range(0, len(found.thresholds), 37):
        told, kept = found.at(index), scores >= found.thresholds[index]
        assert told["coverage"] == kept.mean()
        assert told["unsure"] == (~kept).sum()
        assert told["accuracy"] == (right[kept].mean() if kept.any() else None)
    assert found.at(0)["coverage"] == 1


def test_an_answer_counts_from_its_own_probability_on():
    rows = predictions().predictions
    score = sorted(p.score for p in rows)[400]
    found = reliability.coverage_curve(rows, score)
    assert found.answered[found.start] == 100


def test_the_table_holds_the_artifacts_own_threshold():
    table = reliability.coverage_curve(predictions().predictions, 0.731234).table()
    assert [row["threshold"] for row in table] == sorted(row["threshold"] for row in table)
    assert 0.731234 in [row["threshold"] for row in table]
    assert len(table) == 9


def test_the_curve_is_well_formed_and_spans_its_axis():
    found = reliability.coverage_curve(predictions().predictions, 0.5)
    svg = reliability.coverage_chart(found, ENGLISH)
    ElementTree.fromstring(svg)
    assert "M48.0 " in svg  # threshold 0 and threshold 1 stand at the ends: the cursor counts on it
    assert "L388.0 " in svg


def test_a_bar_stands_for_each_bin():
    side = predictions().to_dict()["calibration"]["before"]
    svg = reliability.reliability_diagram(side, "before <it>", ENGLISH)
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == "before <it>"
    filled = [found for found in side["bins"] if found["count"]]
    bars = [r for r in root.iter("rect") if r.get("class") == "bar"]
    assert len(bars) == len(filled) > 4
    for bar, found in zip(bars, filled, strict=True):
        assert float(bar.get("height")) == pytest.approx(220 * found["accuracy"], abs=0.2)
        assert float(bar.get("x")) == pytest.approx(56 + 254 * found["low"] + 1, abs=0.2)
    gaps = [r for r in root.iter("rect") if r.get("class") == "gap"]
    for gap, found in zip(gaps, filled, strict=True):
        size = abs(found["accuracy"] - found["confidence"])
        assert float(gap.get("height")) == pytest.approx(220 * size, abs=0.2)
    counts = [float(r.get("height")) for r in root.iter("rect") if r.get("class") == "count"]
    most = max(found["count"] for found in filled)
    assert counts == pytest.approx([max(1, 30 * f["count"] / most) for f in filled], abs=0.1)


def test_no_answer_no_bar():
    svg = reliability.reliability_diagram({"bins": [], "ece": 0.0}, "empty", ENGLISH)
    assert "<rect" not in svg
    ElementTree.fromstring(svg)
