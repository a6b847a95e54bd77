from typing import Any

import numpy as np
import pytest
from features import CLASSES, WIDTH, drawn, several
from networks import tiny

from vitral.errors import WeightsError
from vitral.evaluation import fit
from vitral.evaluation.fit import Fitted
from vitral.specs import ImageSpec
from vitral.specs.tree import ClassTree
from vitral.weights.card import Card

NAMES = tuple("abcd")


def card_of(width: int = WIDTH, **changes: Any) -> Card:
    spec = tiny(width=width, heads=1, classes=CLASSES)
    return Card(model=spec, images=ImageSpec(size=spec.size), classes=NAMES, **changes)


def test_everything_goes_and_comes_back() -> None:
    held_out = drawn(50, 2)
    fitted = fit.fit("single_label", held_out.logits, held_out.labels)
    assert fitted.calibration is not None and fitted.foreign is None
    assert {name.partition(".")[0] for name in fitted.arrays()} == {"sets"}
    fitted = fit.with_foreign(fitted, "single_label", drawn(60, 1), held_out)
    assert {name.partition(".")[0] for name in fitted.arrays()} == {"foreign", "sets"}
    back = Fitted.read(card_of(calibration=fitted.calibration), fitted.arrays())
    assert back.calibration == fitted.calibration
    assert back.to_dict() == fitted.to_dict()
    assert Fitted.read(card_of(), {}) == Fitted()


def test_several_labels_have_no_calibration() -> None:
    held_out = several(drawn(50, 2))
    fitted = fit.fit("multi_label", held_out.logits, held_out.labels)
    assert fitted == Fitted()
    fitted = fit.with_foreign(fitted, "multi_label", several(drawn(60, 1)), held_out)
    assert fitted.foreign is not None
    best = 1 / (1 + np.exp(-held_out.logits.max(axis=1)))
    assert np.allclose(np.sort(fitted.foreign.confidences), np.sort(best), atol=1e-6)


def test_what_another_version_wrote_and_another_model_had_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"has later, which this version .* vitral fit"):
        Fitted.read(card_of(), {"later.thing": np.ones(2)})
    fitted = fit.with_foreign(Fitted(), "single_label", drawn(60, 1), drawn(50, 2))
    with pytest.raises(WeightsError, match=r"does not fit the model: .* width than 7\. .* vitral"):
        Fitted.read(card_of(7), fitted.arrays())


def test_sets_and_groups_go_and_come_back() -> None:
    held_out = drawn(50, 2)
    tree = ClassTree(parents={"a": "x", "b": "x"})
    fitted = fit.fit("single_label", held_out.logits, held_out.labels, NAMES, tree, fresh=True)
    assert fitted.tree is not None and fitted.tree.threshold is not None
    card = card_of(calibration=fitted.calibration, tree=fitted.tree)
    back = Fitted.read(card, fitted.arrays())
    assert back.tree == fitted.tree
    assert back.sets is not None and fitted.sets is not None and back.sets.fresh
    rules = [sets.rule(0.8, "adaptive").thresholds for sets in (back.sets, fitted.sets)]
    np.testing.assert_array_equal(*rules)
    other = tiny(width=WIDTH, heads=1, classes=2)
    two = Card(model=other, images=ImageSpec(size=other.size), classes=("a", "b"))
    with pytest.raises(WeightsError, match=r"does not fit the model: .* not of 2 classes.* vitral"):
        Fitted.read(two, fitted.arrays())
