"""The curves of a run, from its metrics.jsonl: accuracy, loss, learning rate, speed, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vitral.drawing.svg_charts import Point, Series, line_chart
from vitral.report.record import Line, Record
from vitral.report.translations import Words


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One chart: its title, what it shows and in which unit, its lines, and the drawing."""

    title: str
    note: str
    series: tuple[Series, ...]
    svg: Markup


def curves(found: Record, words: Words) -> list[Curve]:
    """The charts for which the run folder has numbers, over epochs where they are known."""
    training, validations, say = found.training, found.validations, words.say
    known = all("epoch" in line for line in training + validations)
    axis = "epoch" if known else "step"
    x_label = say("epoch") if known else say("step")
    band = [(line[axis], *line["val_interval"]) for line in validations if "val_interval" in line]

    def line(name: str, pane: str, lines: Sequence[Line], key: str) -> Series:
        points: list[Point] = [(line[axis], line[key]) for line in lines if key in line]
        return Series(name=name, pane=pane, points=points)

    trained, validated = say("training"), say("validation")
    single = found.headline == "accuracy"
    learnt = line(trained, "cobalt", training if single else [], "accuracy")
    key = "val_accuracy" if single else "val_score"  # the interval is that of the score
    held = line(validated, "emerald", validations, key)
    title = say("Accuracy") if single else say("Mean average precision")
    note = say("of validation, with its 95 %% interval")
    if single:
        note = say("of the validation images, with its 95 %% interval")
    if learnt.points:
        note = say("validation with 95 %% interval")
    held = Series(name=validated, pane="emerald", points=held.points, band=band)
    losses = (
        line(trained, "cobalt", training, "loss"),
        line(validated, "ruby", validations, "val_loss"),
    )
    lr = line(say("Learning rate"), "violet", training, "lr")
    speed = line(say("Speed"), "amber", training, "images_per_second")
    memory = line(say("Memory"), "cobalt", training, "memory")
    drawn = [
        _curve(title, note, x_label, [learnt, held], percent),
        *_losses(found, x_label, losses, words),
        _curve(lr.name, say("of the optimizer"), x_label, [lr], short),
        _curve(speed.name, say("training images per second"), x_label, [speed], number),
        _curve(memory.name, say("held by one process, in gigabytes"), x_label, [memory], gigabytes),
    ]
    return [curve for curve in drawn if curve.series]


def _losses(found: Record, x_label: str, lines: tuple[Series, Series], words: Words) -> list[Curve]:
    """One chart where both are the same function of the logits, otherwise one each."""
    settings, say, shown = found.recipe.get("objective"), words.say, "{:.4g}".format
    kind = settings.get("loss", "softmax") if isinstance(settings, dict) else "softmax"
    multi_label = found.headline != "accuracy"
    counted = say("cross-entropy in nats")
    if multi_label:
        counted = say("binary cross-entropy per label, in nats")
    if kind == ("bce" if multi_label else "softmax"):
        return [_curve(say("Loss"), counted, x_label, lines, shown)]
    note = say("in training")
    if kind == "sigmoid":
        note = say("in training: binary cross-entropy, summed over the classes")
    if kind == "bce":
        note = say("in training: binary cross-entropy, mean over the classes")
    return [
        _curve(say("Loss"), note, x_label, lines[:1], shown),
        _curve(say("Validation loss"), counted, x_label, lines[1:], shown),
    ]


def _curve(
    title: str, note: str, x_label: str, series: Sequence[Series], shown: Callable[[float], str]
) -> Curve:
    zero = shown in (short, number, gigabytes)  # rates and amounts, which a cut axis would distort
    return Curve(
        title=title,
        note=note,
        series=tuple(line for line in series if line.points),
        svg=line_chart(series, x_label, f"{title}, {note}", shown, from_zero=zero),
    )


def percent(share: float) -> str:
    """'80 %' on an axis: no more digits than it needs."""
    return f"{100 * share:.4g}\N{NO-BREAK SPACE}%"


def short(value: float) -> str:
    """'0.01', or '5e-4' where that is shorter."""
    plain, power = f"{value:.2g}", f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")
    return plain if len(plain) <= 5 else power


def gigabytes(count: float) -> str:
    """'0.5' of so many bytes; the unit stands above the chart."""
    return f"{count / 1e9:.3g}"


def number(value: float) -> str:
    """A count with its thousands apart."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
