"""What the verbs show on a terminal: tables of models and of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from vitral.wording import listed

if TYPE_CHECKING:
    from vitral.data.check import Check
    from vitral.evaluation import Score
    from vitral.evaluation import Table as PlainTable

MOST_COLUMNS = 20  # classes that a table on a terminal lists
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
    evaluation: Score,
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
    for line in evaluation.lines():
        yield line if isinstance(line, str) else _drawn(line)


def _drawn(table: PlainTable) -> Table:
    drawn = Table(title=table.title, header_style="bold")
    for heading in table.headings:
        first = not drawn.columns
        drawn.add_column(heading, justify="left" if first else "right", no_wrap=not first)
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    return drawn


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
    shown = list(check.classes.items())[:MOST_COLUMNS]
    more = len(check.classes) - len(shown)
    names = ", ".join(f"{name} {count:,}" for name, count in shown)
    yield f"classes   {names}{f' and {more} more' if more else ''}"
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
