"""Which curves a run has, and how their axes are written."""

import pytest

from vitral.report.curves import curves, number, percent, short
from vitral.report.record import Record


def run(training=(), validations=()):
    return Record(
        name="run",
        recipe={},
        command="",
        environment={},
        card={},
        predictions=[],
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
        (number, 3925, "3\N{NARROW NO-BREAK SPACE}925"),
        (number, 12.4, "12"),
    ],
)
def test_numbers_on_axes(write, value, text):
    assert write(value) == text
