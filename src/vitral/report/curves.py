"""The curves of a run, from its metrics.jsonl: accuracy, loss, learning rate, speed, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from vitral.drawing.svg_charts import Point, Series, line_chart
from vitral.report.facts import headline_name
from vitral.report.record import Line, Record
from vitral.report.translations import Translations


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One chart: its title, what it shows and in which unit, its lines, and the drawing."""

    title: str
    note: str
    series: tuple[Series, ...]
    svg: Markup


def curves(record: Record, language: Translations) -> list[Curve]:
    """Draw the charts for which the run folder has numbers, over epochs where they are known."""
    training = record.training
    validations = record.validations
    say = language.say
    over_epochs = all("epoch" in line for line in training + validations)
    axis = "epoch" if over_epochs else "step"
    x_label = say("epoch") if over_epochs else say("step")

    losses = (
        _series(axis, say("training"), "cobalt", training, "loss"),
        _series(axis, say("validation"), "ruby", validations, "val_loss"),
    )
    lr = _series(axis, say("Learning rate"), "violet", training, "lr")
    speed = _series(axis, say("Speed"), "amber", training, "images_per_second")
    memory = _series(axis, say("Memory"), "cobalt", training, "memory")
    drawn = [
        _score(record, axis, x_label, language),
        *_losses(record, x_label, losses, language),
        _curve(lr.name, say("of the optimizer"), x_label, [lr], short),
        _curve(speed.name, say("training images per second"), x_label, [speed], number),
        _curve(memory.name, say("held by one process, in gigabytes"), x_label, [memory], gigabytes),
    ]
    return [curve for curve in drawn if curve.series]


def _series(axis: str, name: str, pane: str, lines: Sequence[Line], key: str) -> Series:
    points: list[Point] = [(line[axis], line[key]) for line in lines if key in line]
    return Series(name=name, pane=pane, points=points)


def _score(record: Record, axis: str, x_label: str, language: Translations) -> Curve:
    """The score of validation with its interval, and of training where that was measured."""
    say = language.say
    single_label = record.headline == "accuracy"
    key = record.headline.replace(" ", "_")
    trained = _series(axis, say("training"), "cobalt", record.training, key)
    key = "val_accuracy" if single_label else "val_score"  # the interval is that of the score
    validated = _series(axis, say("validation"), "emerald", record.validations, key)
    band = [
        (line[axis], *line["val_interval"]) for line in record.validations if "val_interval" in line
    ]
    note = say("of validation, with its 95 %% interval")
    if single_label:
        note = say("of the validation images, with its 95 %% interval")
    if trained.points:
        note = say("validation with 95 %% interval")
    title = headline_name(record.headline, language)
    return _curve(title, note, x_label, [trained, replace(validated, band=band)], percent)


def _losses(
    record: Record, x_label: str, lines: tuple[Series, Series], language: Translations
) -> list[Curve]:
    """One chart where both are the same function of the logits, otherwise one each."""
    say = language.say
    settings = record.recipe.get("objective")
    kind = settings.get("loss", "softmax") if isinstance(settings, dict) else "softmax"
    multi_label = record.headline == "mean average precision"
    unit = say("cross-entropy in nats")
    if multi_label:
        unit = say("binary cross-entropy per label, in nats")
    if kind == ("bce" if multi_label else "softmax"):
        return [_curve(say("Loss"), unit, x_label, lines, four_digits)]
    note = say("in training")
    if kind == "sigmoid":
        note = say("in training: binary cross-entropy, summed over the classes")
    if kind == "bce":
        note = say("in training: binary cross-entropy, mean over the classes")
    return [
        _curve(say("Loss"), note, x_label, lines[:1], four_digits),
        _curve(say("Validation loss"), unit, x_label, lines[1:], four_digits),
    ]


def _curve(
    title: str, note: str, x_label: str, series: Sequence[Series], format_y: Callable[[float], str]
) -> Curve:
    # a cut axis would distort rates and amounts
    from_zero = format_y in (short, number, gigabytes)
    return Curve(
        title=title,
        note=note,
        series=tuple(line for line in series if line.points),
        svg=line_chart(series, x_label, f"{title}, {note}", format_y, from_zero=from_zero),
    )


def four_digits(value: float) -> str:
    """'0.6931' of a loss."""
    return f"{value:.4g}"


def percent(share: float) -> str:
    """'80 %' on an axis: no more digits than it needs."""
    return f"{100 * share:.4g}\N{NO-BREAK SPACE}%"


def short(value: float) -> str:
    """'0.01', or '5e-4' where that is shorter."""
    plain = f"{value:.2g}"
    power = f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")
    return plain if len(plain) <= 5 else power


def gigabytes(count: float) -> str:
    """'0.5' of so many bytes; the unit stands above the chart."""
    return f"{count / 1e9:.3g}"


def number(value: float) -> str:
    """A count with its thousands apart."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
