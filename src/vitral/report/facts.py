"""The head and the foot of the page: the score, the network, the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vitral.errors import SpecError
from vitral.evaluation import ClassScore, wilson
from vitral.report.record import Record
from vitral.report.translations import Translations
from vitral.specs import ModelSpec, counts

# what the page asks of the sets in evaluation.json, and of each class there
SETS = (
    *("level", "images", "fresh", "enough", "own_guarantee", "cross_fitted"),
    *("samples", "coverage", "interval", "mean_size", "sizes", "per_class"),
)
SET_OF_CLASS = ("name", "samples", "coverage", "interval", "mean_size", "own_guarantee")


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


def headline(
    record: Record, scores: Sequence[ClassScore], language: Translations
) -> Headline | None:
    """The first number: of predictions.csv, else of best/model.json or the last validation."""
    name = headline_name(record.headline, language)
    split = _split_name(record.split or str(record.metrics.get("split", "val")), language)
    chosen_from = len(record.validations) if record.metrics.get("selected") == "best" else 0
    if chosen_from == 1:
        chosen_from = 0
    if record.multi_label is not None:
        return Headline(
            name=name,
            score=record.multi_label.score,
            interval=record.multi_label.interval,
            samples=record.multi_label.samples,
            correct=round(record.multi_label.accuracy * record.multi_label.samples),
            split=split,
            baseline=None,
            chosen_from=chosen_from,
        )
    if record.predictions:
        samples = len(record.predictions)
        correct = sum(score.correct for score in scores)
        return Headline(
            name=name,
            score=correct / samples,
            interval=wilson(correct, samples),
            samples=samples,
            correct=correct,
            split=split,
            baseline=max(score.support for score in scores) / samples,
            chosen_from=chosen_from,
            also=_further_scores(record, language),
        )
    measures = record.measures
    score = measures.get(record.headline.replace(" ", "_"), measures.get("score"))
    interval = measures.get("interval")
    if score is None or interval is None:
        return None
    counted = measures.get("samples")
    accuracy = measures.get("accuracy")
    return Headline(
        name=name,
        score=score,
        interval=(interval[0], interval[1]),
        samples=counted,
        correct=round(accuracy * counted) if counted and accuracy is not None else None,
        split=split,
        baseline=None,
        chosen_from=chosen_from,
    )


def headline_name(name: str, language: Translations) -> str:
    """Say what a score is called."""
    match name:
        case "accuracy":
            return language.say("Accuracy")
        case "mean average precision":
            return language.say("Mean average precision")
        case "patch accuracy":
            return language.say("Patch accuracy")
        case _:
            return name.capitalize()


def _split_name(name: str, language: Translations) -> str:
    match name:
        case "val":
            return language.say("validation")
        case "test":
            return language.say("test")
        case "all":
            return language.say("given")
        case _:
            return name


def _further_scores(
    record: Record, language: Translations
) -> tuple[tuple[str, float, tuple[float, float]], ...]:
    """Name, score and interval of those of evaluation.json that come with an interval."""
    named = {"top5": language.say("Top-5 accuracy"), "macro_f1": language.say("Macro-F1")}
    values = record.summary
    return tuple(
        (name, values[key], (low, high))
        for key, name in named.items()
        if values.get(key) is not None and values.get(f"{key}_interval")
        for low, high in [values[f"{key}_interval"]]
    )


def answer_sets(record: Record) -> dict[str, Any]:
    """The sets of evaluation.json, with the share of those of one class; {} for none."""
    found: Any = record.summary.get("sets")
    if not _has(found, SETS) or not all(_has(each, SET_OF_CLASS) for each in found["per_class"]):
        return {}
    return {**found, "alone": found["sizes"][0] / found["samples"]}


def class_tree(record: Record) -> dict[str, Any]:
    """The groups of evaluation.json, with the share of right answers; {} for none."""
    found: Any = record.summary.get("tree")
    if not _has(found, ("levels", "threshold", "answers", "cross_fitted")):
        return {}
    answers = dict(found["answers"])
    for by in ("class", "group"):
        counted = answers[by]["samples"]
        share = answers[by]["correct"] / counted if counted else None
        answers[by] = {"samples": counted, "share": share}
    return {**found, "answers": answers}


def _has(values: Any, names: Sequence[str]) -> bool:
    """Whether it is an object with these names; another version's may have others."""
    return isinstance(values, dict) and set(names) <= set(values)


def changes(record: Record) -> dict[str, Any]:
    """Tell what a fine-tune lost and won, the classes that changed most first; {} for nothing."""
    found = record.summary.get("changes")
    if not isinstance(found, dict) or not found.get("classes"):
        return {}
    rows = sorted(found["classes"], key=lambda c: (c["verdict"] not in ("lost", "won"), -c["lost"]))
    return {**found, "classes": rows}


def network(record: Record, language: Translations) -> dict[str, str]:
    """Name, size and cost of the network, as far as the card or the recipe tells."""
    values = record.card.get("model") or record.recipe.get("model")
    try:
        spec = ModelSpec.from_dict(values) if isinstance(values, dict) else None
    except (SpecError, TypeError):
        spec = None
    if spec is None:
        return {}
    flops = counts.flops(spec)
    facts = {
        language.say("model"): spec.name,
        language.say("parameters"): f"{counts.parameters(spec) / 1e6:.3g} M",
        language.say("image"): "{} × {} px".format(*spec.size),
    }
    if not spec.is_resnet:
        facts[language.say("patches")] = "{} × {}".format(*spec.grid)
    cost = f"{flops / 1e9:.3g} GFLOPs" if flops > 1e8 else f"{flops / 1e6:.3g} MFLOPs"
    return facts | {language.say("compute"): cost}


def settings(
    recipe: dict[str, Any], language: Translations
) -> list[tuple[str, list[tuple[str, str]]]]:
    """The recipe as (group, [(name, value)]): what stands alone first, then each part."""
    alone = {name: value for name, value in recipe.items() if not isinstance(value, dict)}
    groups = [("run", alone)] if alone else []
    groups += [(name, part) for name, part in recipe.items() if isinstance(part, dict)]
    return [(name, rows(part, language)) for name, part in groups]


def rows(part: dict[str, Any], language: Translations, prefix: str = "") -> list[tuple[str, str]]:
    """Names and values, a part within the part as `its.name`."""
    named: list[tuple[str, str]] = []
    for name, value in part.items():
        if isinstance(value, dict):
            named += rows(value, language, f"{prefix}{name}.")
        else:
            named.append((f"{prefix}{name}", shown(value, language)))
    return named


def shown(value: Any, language: Translations) -> str:
    """A setting as a person writes it."""
    match value:
        case None:
            return "–"
        case bool():
            return language.say("yes") if value else language.say("no")
        case float():
            return f"{value:g}"
        case list() | tuple():
            return ", ".join(shown(item, language) for item in value) or "–"
        case _:
            return str(value)


def foreign(record: Record, language: Translations) -> dict[str, Any]:
    """Tell how foreign images are told and how well each distance did; empty where they are not."""
    fitted = record.foreign
    how = {
        "mahalanobis": language.say("The distance is that to the nearest class mean."),
        "gaussian": language.say("The distance is that to the mean of all."),
        "neighbours": language.say("The distance is that to the nearest images."),
    }
    names = {
        "mahalanobis": language.say("to the nearest class mean"),
        "gaussian": language.say("to the mean of all"),
        "neighbours": language.say("to the nearest images"),
    }
    if fitted.get("kind") not in how:
        return {}
    areas = fitted.get("auroc_of_held_out_classes") or {}
    return {
        "how": how[fitted["kind"]],
        "learnt": fitted.get("learnt", 0),
        "held_out": fitted.get("held_out", 0),
        "areas": [(names[kind], area) for kind, area in areas.items() if kind in names],
    }
