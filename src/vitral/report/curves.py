"""The curves of a run, from its metrics.jsonl: accuracy, loss, learning rate, speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vitral.report.charts import Point, Series, line_chart
from vitral.report.record import Line, Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One chart: its title, what it shows and in which unit, its lines, and the drawing."""

    title: str
    note: str
    series: tuple[Series, ...]
    svg: Markup


def curves(found: Record) -> list[Curve]:
    """The charts for which the run folder has numbers, over epochs where they are known."""
    training, validations = found.training, found.validations
    axis = "epoch" if all("epoch" in line for line in training + validations) else "step"
    band = [(line[axis], *line["val_interval"]) for line in validations if "val_interval" in line]

    def line(name: str, pane: str, lines: Sequence[Line], key: str) -> Series:
        points: list[Point] = [(line[axis], line[key]) for line in lines if key in line]
        return Series(name=name, pane=pane, points=points)

    accuracy = line("accuracy", "emerald", validations, "val_accuracy")
    accuracy = Series(name="accuracy", pane="emerald", points=accuracy.points, band=band)
    loss = line("training", "cobalt", training, "loss")
    val_loss = line("validation", "ruby", validations, "val_loss")
    lr = line("learning rate", "violet", training, "lr")
    speed = line("images per second", "amber", training, "images_per_second")
    note = "of the validation images, with its 95 % interval"
    drawn = [
        _curve("Accuracy", note, axis, [accuracy], percent),
        _curve("Loss", "cross-entropy in nats", axis, [loss, val_loss], "{:.4g}".format),
        _curve("Learning rate", "of the optimizer", axis, [lr], short),
        _curve("Speed", "training images per second", axis, [speed], number),
    ]
    return [curve for curve in drawn if curve.series]


def _curve(
    title: str, note: str, axis: str, series: Sequence[Series], shown: Callable[[float], str]
) -> Curve:
    zero = title in ("Learning rate", "Speed")
    return Curve(
        title=title,
        note=note,
        series=tuple(line for line in series if line.points),
        svg=line_chart(series, axis, f"{title}, {note}", shown, from_zero=zero),
    )


def percent(share: float) -> str:
    """'80 %' on an axis: no more digits than it needs."""
    return f"{100 * share:.4g}\N{NO-BREAK SPACE}%"


def short(value: float) -> str:
    """'0.01', or '5e-4' where that is shorter."""
    plain, power = f"{value:.2g}", f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")
    return plain if len(plain) <= 5 else power


def number(value: float) -> str:
    """A count with its thousands apart."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
