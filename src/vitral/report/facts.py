"""What stands at the head and the foot of the page: the score, the network, the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vitral.errors import SpecError
from vitral.evaluation import ClassScore, wilson
from vitral.report.record import Record
from vitral.report.translations import Words
from vitral.specs import ModelSpec, counts


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """The first number of the page and what stands around it."""

    name: str
    score: float
    interval: tuple[float, float]
    samples: int | None
    correct: int | None
    split: str
    baseline: float | None  # of always naming the commonest class
    chosen_from: int  # validations of which the best was kept; 0 when it was not chosen so
    also: tuple[tuple[str, float, tuple[float, float]], ...] = ()  # further scores


def headline(found: Record, scores: Sequence[ClassScore], words: Words) -> Headline | None:
    """Counted from predictions.csv, else as best/model.json or the last validation says."""
    metrics = found.card.get("metrics") or {}
    split = _split(found.split or str(metrics.get("split", "val")), words)
    name = words.say("Accuracy")
    if found.headline != "accuracy":
        name = words.say("Mean average precision")
    chosen = len(found.validations) if metrics.get("selected") == "best" else 0
    chosen = chosen if chosen > 1 else 0
    if found.multi_label is not None:
        return Headline(
            name=name,
            score=found.multi_label.score,
            interval=found.multi_label.interval,
            samples=found.multi_label.samples,
            correct=round(found.multi_label.accuracy * found.multi_label.samples),
            split=split,
            baseline=None,
            chosen_from=chosen,
        )
    if found.predictions:
        samples = len(found.predictions)
        correct = sum(score.correct for score in scores)
        return Headline(
            name=name,
            score=correct / samples,
            interval=wilson(correct, samples),
            samples=samples,
            correct=correct,
            split=split,
            baseline=max(score.support for score in scores) / samples,
            chosen_from=chosen,
            also=_also(found, words),
        )
    return _told(found, name, split, chosen)


def _split(name: str, words: Words) -> str:
    match name:
        case "val":
            return words.say("validation")
        case "test":
            return words.say("test")
        case "all":
            return words.say("given")
        case _:
            return name


def _also(found: Record, words: Words) -> tuple[tuple[str, float, tuple[float, float]], ...]:
    """The further scores of evaluation.json that come with their interval."""
    named = {"top5": words.say("Top-5 accuracy"), "macro_f1": words.say("Macro-F1")}
    told = found.summary
    return tuple(
        (name, told[key], (low, high))
        for key, name in named.items()
        if told.get(key) is not None and told.get(f"{key}_interval")
        for low, high in [told[f"{key}_interval"]]
    )


def _told(found: Record, name: str, split: str, chosen: int) -> Headline | None:
    """As best/model.json or the last validation says."""
    metrics = found.card.get("metrics") or {}
    last = found.validations[-1] if found.validations else {}
    accuracy = metrics.get("accuracy", last.get("val_accuracy"))
    multi_label = found.headline != "accuracy"
    told = metrics.get(found.headline.replace(" ", "_"), last.get("val_score"))
    score = told if multi_label else accuracy
    interval = metrics.get("interval", last.get("val_interval"))
    if score is None or interval is None:
        return None
    counted = metrics.get("samples")
    return Headline(
        name=name,
        score=score,
        interval=(interval[0], interval[1]),
        samples=counted,
        correct=round(accuracy * counted) if counted and accuracy is not None else None,
        split=split,
        baseline=None,
        chosen_from=chosen,
    )


def network(found: Record, words: Words) -> dict[str, str]:
    """Name, size and cost of the network, as far as the card or the recipe tells."""
    values = found.card.get("model") or found.recipe.get("model")
    try:
        spec = ModelSpec.from_dict(values) if isinstance(values, dict) else None
    except (SpecError, TypeError):
        spec = None
    if spec is None:
        return {}
    flops = counts.flops(spec)
    facts = {
        words.say("model"): spec.name,
        words.say("parameters"): f"{counts.parameters(spec) / 1e6:.3g} M",
        words.say("image"): "{} × {} px".format(*spec.size),
    }
    if not spec.is_resnet:
        facts[words.say("patches")] = "{} × {}".format(*spec.grid)
    cost = f"{flops / 1e9:.3g} GFLOPs" if flops > 1e8 else f"{flops / 1e6:.3g} MFLOPs"
    return facts | {words.say("compute"): cost}


def settings(recipe: dict[str, Any], words: Words) -> list[tuple[str, list[tuple[str, str]]]]:
    """The recipe as (group, [(name, value)]): what stands alone first, then each part."""
    alone = {name: value for name, value in recipe.items() if not isinstance(value, dict)}
    groups = [("run", alone)] if alone else []
    groups += [(name, part) for name, part in recipe.items() if isinstance(part, dict)]
    return [(name, rows(part, words)) for name, part in groups]


def rows(part: dict[str, Any], words: Words, prefix: str = "") -> list[tuple[str, str]]:
    """Names and values, a part within the part as `its.name`."""
    found: list[tuple[str, str]] = []
    for name, value in part.items():
        if isinstance(value, dict):
            found += rows(value, words, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", shown(value, words)))
    return found


def shown(value: Any, words: Words) -> str:
    """A setting as a person writes it."""
    match value:
        case None:
            return "–"
        case bool():
            return words.say("yes") if value else words.say("no")
        case float():
            return f"{value:g}"
        case list() | tuple():
            return ", ".join(shown(item, words) for item in value) or "–"
        case _:
            return str(value)
