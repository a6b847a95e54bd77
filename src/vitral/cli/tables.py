"""What the verbs show on a terminal: tables of models and of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from vitral.wording import listed

if TYPE_CHECKING:
    from vitral.data.check import Check
    from vitral.evaluation import (
        Comparison,
        Evaluation,
        LabelScore,
        MultiLabelEvaluation,
        ReliabilityReport,
    )

MOST_COLUMNS = 20  # classes that a table on a terminal lists
MOST_PAIRS = 20
MOST_EXAMPLES = 3  # of a problem with the data


def models_table(rows: list[dict[str, Any]]) -> Table:
    """Name, width, depth, heads, parameters and GFLOPs of each model."""
    note = "One multiply-add counts as two FLOPs; one image, forward."
    table = Table(title="Models (1000 classes)", header_style="bold", caption=note)
    for column in ("name", "width", "depth", "heads", "M params", "GFLOPs", "at size"):
        table.add_column(column, justify="left" if column == "name" else "right")
    for row in rows:
        height, width = row["size"]
        table.add_row(
            row["name"],
            *(str(row[key]) if row[key] else "-" for key in ("width", "depth", "heads")),
            f"{row['parameters'] / 1e6:,.2f}",
            f"{row['gflops']:,.2f}",
            f"{height}x{width}",
        )
    return table


def weights_table(rows: list[dict[str, Any]]) -> Table:
    """Id, model, size, licence and published accuracy of each checkpoint."""
    table = Table(title="Published weights", header_style="bold")
    for column in ("id", "model", "px", "MB", "classes", "top-1 %", "licence"):
        table.add_column(column, justify="right" if column in ("px", "MB", "top-1 %") else "left")
    for row in rows:
        top1 = "-" if row["top1"] is None else f"{row['top1']:.1f}"
        megabytes = f"{row['bytes'] / 1e6:,.0f}"
        numbers = (str(row["size"]), megabytes, str(row["classes"] or "no head"), top1)
        table.add_row(Text(row["id"]), row["model"] or "-", *numbers, row["licence"])
    return table


def evaluation_lines(
    evaluation: Evaluation | MultiLabelEvaluation,
    unknown: Mapping[str, int] | None = None,
    *,
    both: bool = False,
) -> Iterator[str | Table]:
    """The headlines with their intervals, each class (the worst of many), then the confusions.

    `unknown` are the images that were left out, by their class; of `both` models, where one of two
    that are compared does not know it.
    """
    if unknown:
        who = "that not both models know" if both else "it does not know"
        counts = (f"{name} ({count:,})" for name, count in sorted(unknown.items()))
        told = listed(counts, MOST_EXAMPLES)
        yield f"left out   {sum(unknown.values()):,} images of classes {who}: {told}"
    # a class of evaluation cannot be asked for here: it would read numpy for `vitral models`
    if evaluation.headline == "accuracy":
        yield from _one_label(evaluation)
    else:
        yield from _multi_label(evaluation)


def _one_label(evaluation: Evaluation) -> Iterator[str | Table]:
    shown = _share("accuracy", evaluation.accuracy, evaluation.interval, 9)
    yield f"{shown}  {evaluation.correct:,} of {evaluation.samples:,}"
    if evaluation.top5 is not None and evaluation.top5_interval is not None:
        yield _share("top-5", evaluation.top5, evaluation.top5_interval, 9)
    yield _share("macro F1", evaluation.macro_f1, evaluation.macro_f1_interval, 9)
    yield from _reliability(evaluation.reliability)
    yield _class_scores(evaluation)
    names = evaluation.classes
    digits = len(str(max(len(names) - 1, int(evaluation.confusion.max()))))
    if len(names) * (digits + 3) + 20 <= 80:  # narrower columns would hide the counts
        yield _confusion(evaluation)
        return
    pairs = [
        (int(count), names[truth], names[guess])
        for truth, row in enumerate(evaluation.confusion)
        for guess, count in enumerate(row)
        if truth != guess and count
    ]
    for count, truth, guess in sorted(pairs, reverse=True)[:MOST_PAIRS]:
        yield f"{count:5}  {truth} taken for {guess}"


def _multi_label(evaluation: MultiLabelEvaluation) -> Iterator[str | Table]:
    scored = len(evaluation.classes) - len(evaluation.without_positives)
    yield (
        f"{_share('mean average precision', evaluation.score, evaluation.interval)}  "
        f"over {scored} of {len(evaluation.classes)} classes"
    )
    exact = round(evaluation.accuracy * evaluation.samples)
    yield (
        f"{_share('exact match', evaluation.accuracy, evaluation.accuracy_interval)}  "
        f"{exact} of {evaluation.samples}"
    )
    micro, macro = 100 * evaluation.f1_micro, 100 * evaluation.f1_macro
    yield f"{'F1 at 0.5':<22}  micro {micro:.2f} %, macro {macro:.2f} %"
    if evaluation.without_positives:
        names = listed(evaluation.without_positives, MOST_EXAMPLES)
        yield f"{'not scored':<22}  {names}: no image has it"
    worst = sorted(evaluation.per_class, key=lambda score: score.average_precision or 0.0)
    yield _label_scores(
        evaluation.per_class if len(worst) <= MOST_COLUMNS else worst[:MOST_COLUMNS]
    )


def comparison_lines(found: Comparison, first: str, second: str) -> Iterator[str]:
    """Both accuracies, where the two differ, McNemar's p, and what it means."""
    width = max(9, len(first), len(second))
    yield _share(first, found.accuracy, found.interval, width)
    yield _share(second, found.other_accuracy, found.other_interval, width)
    yield (
        f"right      both {found.both:,}, only the first {found.only_first:,}, only the second "
        f"{found.only_second:,}, neither {found.neither:,} of {found.samples:,} images"
    )
    low, high = (100 * bound for bound in found.difference_interval)
    yield (
        f"differ     by {100 * found.difference:+.2f} points (95 %: {low:+.2f} to {high:+.2f}), "
        f"p = {found.p:.3g} (McNemar, exact)"
    )
    better = first if found.difference > 0 else second
    clear = found.verdict != "not distinguishable"
    yield f"verdict    {f'{better} is better' if clear else found.verdict}"


def _reliability(found: ReliabilityReport) -> Iterator[str]:
    """How far the probabilities are from the truth, and how many answers are sure."""
    before, fitted = f"ECE        {100 * found.before.ece:.2f}", found.calibration
    told = "points between the probabilities and the truth"
    if fitted is None or found.after is None or found.coverage is None:
        yield f"{before} {told}; they are not calibrated"
        return
    crossed = ", cross-fitted" * found.cross_fitted
    yield (
        f"{before} -> {100 * found.after.ece:.2f} {told}, before and after temperature "
        f"{fitted.temperature:.3g}{crossed}"
    )
    right = found.accuracy_when_sure
    correct = "" if right is None else f", {100 * right:.1f} % of those right"
    yield (
        f"sure       {100 * found.coverage:.1f} % of the images{correct}{crossed}; the probability "
        f"is at least {fitted.threshold:.3f}, chosen for {100 * fitted.target:.1f} %"
    )


def _class_scores(evaluation: Evaluation) -> Table:
    """Every class, or the ones with the lowest F1."""
    scores = evaluation.per_class
    if len(scores) > MOST_COLUMNS:
        occurring = [score for score in scores if score.f1 is not None]
        scores = tuple(sorted(occurring, key=lambda score: score.f1 or 0.0)[:MOST_COLUMNS])
    few = len(scores) < len(evaluation.per_class)
    title = f"the {len(scores)} classes of the lowest F1" if few else "each class"
    table = Table(title=f"{title}, with 95 % intervals", header_style="bold")
    for column in ("class", "images", "precision", "recall", "F1"):
        own = column == "class"
        table.add_column(column, justify="left" if own else "right", no_wrap=not own)
    for score in scores:
        f1 = "-" if score.f1 is None else f"{100 * score.f1:.1f} %"
        precision = _within(score.precision, score.precision_interval)
        recall = _within(score.recall, score.recall_interval)
        table.add_row(Text(score.name), f"{score.support:,}", precision, recall, f1)
    return table


def _within(share: float | None, interval: tuple[float, float] | None) -> str:
    if share is None or interval is None:
        return "-"
    low, high = (100 * bound for bound in interval)
    return f"{100 * share:.1f} % ({low:.1f} to {high:.1f})"


def _share(name: str, share: float, interval: tuple[float, float], width: int = 22) -> str:
    low, high = (100 * bound for bound in interval)
    return f"{name:<{width}}  {100 * share:.2f} %  (95 %: {low:.2f} to {high:.2f})"


def _label_scores(scores: Sequence[LabelScore]) -> Table:
    table = Table(header_style="bold")
    for column in ("class", "images", "average precision", "precision", "recall", "F1"):
        table.add_column(column, justify="left" if column == "class" else "right")
    for score in scores:
        values = (score.average_precision, score.precision, score.recall, score.f1)
        shown = ("-" if value is None else f"{100 * value:.1f} %" for value in values)
        table.add_row(Text(score.name), f"{score.support:,}", *shown)
    return table


def _confusion(evaluation: Evaluation) -> Table:
    table = Table(title="confusion: rows are the truth", header_style="bold")
    table.add_column("", no_wrap=True)
    for number in range(len(evaluation.classes)):
        table.add_column(str(number), justify="right")
    for number, name in enumerate(evaluation.classes):
        counts = [str(int(count)) for count in evaluation.confusion[number]]
        table.add_row(Text(f"{number} {name}"), *counts)
    return table


def origin_lines(recipe: Mapping[str, Any], origins: Mapping[str, str]) -> Iterator[str]:
    """Each value of a resolved recipe, in the words of --set, and where it comes from."""
    for name, origin in origins.items():
        value: Any = recipe
        for part in name.split("."):
            value = value[part] if isinstance(value, Mapping) else None
        text = value if isinstance(value, str) else json.dumps(value)
        yield f"{name + '=' + text:<48}  {origin}"


def check_lines(check: Check) -> Iterator[str]:
    """What `vitral check` found: layout, classes, sizes, split, problems, and whether to train."""
    kinds = f"{len(check.classes)} class{'es' * (len(check.classes) != 1)}"
    yield f"{check.source}: {check.images:,} images, {kinds}, {check.layout}"
    counts = (f"{name} {count:,}" for name, count in check.classes.items())
    yield f"classes   {listed(counts, MOST_COLUMNS)}"
    yield f"balance   {check.balance:.1f} images of the largest class for one of the smallest"
    if check.sizes is not None:
        least, median, most = (f"{height}x{width}" for height, width in check.sizes)
        yield f"sizes     smallest {least}, median {median}, largest {most} (height x width)"
    if check.train is not None and check.val is not None:
        train, val = check.train.images, check.val.images
        yield f"split     {train:,} to train, {val:,} held out: {check.how}"
    if not check.problems:
        yield "problems  none" if check.full else "problems  none (--full decodes every image)"
    for code, found in check.problems.items():
        yield f"{code:<14} {len(found):>6,}  {check.effect(code)}"
        for problem in found[:MOST_EXAMPLES]:
            yield f"{'':14} {'':6}  {problem.path}: {problem.reason}"
    if not check.refusal:
        yield "ready to train"
