"""The head and the foot of the page."""

import pytest

from vitral import catalog
from vitral.evaluation import Prediction
from vitral.report import facts
from vitral.report.record import Record
from vitral.report.translations import translations

ENGLISH = translations("en")


def run(**parts):
    empty = {"name": "run", "recipe": {}, "command": "", "environment": {}, "card": {}}
    empty |= {"training": [], "validations": [], "predictions": [], "multi_label": None}
    return Record(**{**empty, **parts})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "yes"),
        (False, "no"),
        (0.0003, "0.0003"),
        ((1, 2.5), "1, 2.5"),
        ([], "–"),
        ("<b>", "<b>"),
        (7, "7"),
    ],
)
def test_a_setting_as_a_person_writes_it(value, text):
    assert facts.shown(value, ENGLISH) == text


def test_settings_what_stands_alone_first_and_parts_within_parts():
    recipe = {"seed": 1, "a": {"x": True, "y": {"z": None}}, "ema": None}
    assert facts.settings(recipe, translations("ko")) == [
        ("run", [("seed", "1"), ("ema", "–")]),
        ("a", [("x", "예"), ("y.z", "–")]),
    ]
    assert facts.settings({}, ENGLISH) == []


def test_the_network_by_its_spec():
    found = facts.network(run(recipe={"model": catalog.model("S/16").to_dict()}), ENGLISH)
    assert found == {
        "model": "S/16",
        "parameters": "22.1 M",
        "image": "224 × 224 px",
        "patches": "14 × 14",
        "compute": found["compute"],
    }
    assert found["compute"].endswith("GFLOPs")
    resnet = catalog.model("BiT-R50x1").to_dict()
    assert "patches" not in facts.network(run(card={"model": resnet}), ENGLISH)
    assert facts.network(run(card={"model": {"unknown": 1}}), ENGLISH) == {}


def test_nothing_measured_no_headline():
    assert facts.headline(run(), (), ENGLISH) is None


def test_further_scores_stand_with_their_interval_or_not_at_all():
    row = Prediction(key="1", labels=("a",), predicted=("a",), score=1.0)
    told = {"top5": None, "top5_interval": None, "macro_f1": 0.5, "macro_f1_interval": [0.25, 0.75]}
    found = facts.headline(run(predictions=[row], summary=told), _scores(), ENGLISH)
    assert found.also == (("Macro-F1", 0.5, (0.25, 0.75)),)
    without = run(predictions=[row], summary={"macro_f1": 0.5})
    assert facts.headline(without, _scores(), ENGLISH).also == ()


@pytest.mark.parametrize(
    ("split", "text"), [("val", "validation"), ("test", "test"), ("all", "given"), ("dev", "dev")]
)
def test_what_the_images_are_called(split, text):
    row = Prediction(key="1", labels=("a",), predicted=("a",), score=1.0)
    assert facts.headline(run(predictions=[row], split=split), _scores(), ENGLISH).split == text


def _scores():
    from vitral.evaluation import class_scores, confusion_matrix

    return class_scores(confusion_matrix([0], [0], 1), ["a"])


def test_how_foreign_images_are_told():
    told = {"kind": "neighbours", "learnt": 30, "held_out": 6}
    told["auroc_of_held_out_classes"] = {"neighbours": 0.75, "gaussian": 0.5}
    found = facts.foreign(run(card={"made_by": {"fitted": {"foreign": told}}}), ENGLISH)
    assert found["areas"] == [("to the nearest images", 0.75), ("to the mean of all", 0.5)]
    assert "nearest images" in found["how"] and found["held_out"] == 6
    for other in ({}, {"made_by": {"fitted": None}}, {"made_by": {"fitted": {"foreign": None}}}):
        assert facts.foreign(run(card=other), ENGLISH) == {}
