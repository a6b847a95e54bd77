"""Which curves a run has, and how their axes are written."""

import pytest

from vitral.report.curves import curves as translated
from vitral.report.curves import gigabytes, number, percent, short
from vitral.report.record import Record
from vitral.report.translations import translations


def curves(found):
    return translated(found, translations("en"))


def run(training=(), validations=(), recipe=None):
    return Record(
        name="run",
        recipe=recipe or {},
        command="",
        environment={},
        card={},
        predictions=[],
        multi_label=None,
        training=list(training),
        validations=list(validations),
    )


TRAINING = [{"step": i, "epoch": i / 8, "loss": 1 / i, "lr": 1e-3} for i in range(1, 9)]
VALIDATION = {"step": 8, "epoch": 1.0, "val_accuracy": 0.5, "val_interval": [0.4, 0.6]}


def test_only_what_was_measured_is_drawn():
    assert curves(run()) == []
    assert [curve.title for curve in curves(run(TRAINING))] == ["Loss", "Learning rate"]
    found = curves(run(TRAINING, [VALIDATION | {"val_loss": 0.2}]))
    assert [curve.title for curve in found] == ["Accuracy", "Loss", "Learning rate"]
    assert [line.name for line in found[1].series] == ["training", "validation"]
    assert found[0].series[0].band == [(1.0, 0.4, 0.6)]


def test_training_accuracy_stands_beside_validation():
    lines = [line | {"accuracy": line["step"] / 10} for line in TRAINING]
    (chart, *_) = curves(run(lines, [VALIDATION]))
    assert [line.name for line in chart.series] == ["training", "validation"]
    assert chart.series[0].points == [(i / 8, i / 10) for i in range(1, 9)]
    assert chart.series[0].band == ()
    assert chart.series[1].points == [(1.0, 0.5)]
    assert chart.note == "validation with 95 % interval"
    mixed = curves(run(TRAINING, [VALIDATION]))[0]  # under mixing there is no training accuracy
    assert [line.name for line in mixed.series] == ["validation"]


def test_multi_labels_are_judged_by_their_precision():
    told = VALIDATION | {"val_score": 0.7, "val_loss": 0.1}
    found = curves(run(TRAINING, [told], {"objective": {"loss": "bce"}}))
    assert found[0].title == "Mean average precision"
    assert found[0].series[0].points == [(1.0, 0.7)]
    assert [line.name for line in found[1].series] == ["training", "validation"]
    same = curves(run(TRAINING, [VALIDATION | {"val_score": 0.5}]))
    assert same[0].title == "Accuracy"


@pytest.mark.parametrize(
    ("loss", "titles"),
    [
        ("softmax", ["Loss"]),
        ("bce", ["Loss", "Validation loss"]),
        ("sigmoid", ["Loss", "Validation loss"]),
    ],
)
def test_losses_that_are_not_the_same_do_not_share_an_axis(loss, titles):
    lines = [VALIDATION | {"val_loss": 2.0}]
    found = curves(run(TRAINING, lines, {"objective": {"loss": loss}}))
    charts = [curve for curve in found if "oss" in curve.title]
    assert [chart.title for chart in charts] == titles
    assert sum(len(chart.series) for chart in charts) == 2


def test_memory_in_gigabytes():
    lines = [line | {"memory": 2_500_000_000} for line in TRAINING]
    chart = curves(run(lines))[-1]
    assert chart.title == "Memory"
    assert ">2.5<" in chart.svg or ">3<" in chart.svg


def test_in_korean_only_the_words_change():
    lines = [VALIDATION | {"val_loss": 0.2}]
    english, korean = (
        curves(run(TRAINING, lines)),
        translated(run(TRAINING, lines), translations("ko")),
    )
    assert [curve.title for curve in korean] == ["정확도", "손실", "학습률"]
    assert korean[0].note == "검증 이미지 기준, 95 % 신뢰구간 포함"
    assert ">에폭<" in korean[0].svg
    points = [[line.points for line in curve.series] for curve in english]
    assert [[line.points for line in curve.series] for curve in korean] == points
    zeros = [">0<" in curve.svg for curve in english]
    assert [">0<" in curve.svg for curve in korean] == zeros


def test_steps_where_epochs_are_unknown():
    lines = [{name: line[name] for name in ("step", "loss")} for line in TRAINING]
    assert ">step<" in curves(run(lines))[0].svg
    assert ">epoch<" in curves(run(TRAINING))[0].svg


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (percent, 0.8, "80\N{NO-BREAK SPACE}%"),
        (percent, 0.975, "97.5\N{NO-BREAK SPACE}%"),
        (short, 0.0, "0"),
        (short, 0.001, "0.001"),
        (short, 0.0005, "5e-4"),
        (short, 0.00025, "2.5e-4"),
        (gigabytes, 2.5e9, "2.5"),
        (gigabytes, 12.34e9, "12.3"),
        (number, 3925, "3\N{NARROW NO-BREAK SPACE}925"),
        (number, 12.4, "12"),
    ],
)
def test_numbers_on_axes(write, value, text):
    assert write(value) == text
