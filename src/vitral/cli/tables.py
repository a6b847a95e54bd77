"""Results of the verbs as rich tables and lines of text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from vitral.wording import listed, visible

if TYPE_CHECKING:
    from vitral.bench import Bench
    from vitral.data.check import Check
    from vitral.evaluation import Score
    from vitral.evaluation import Table as PlainTable
    from vitral.training.run_folder import Run

MOST_CLASSES = 20  # of the data
MOST_EXAMPLES = 3  # of a problem with the data


def models_table(rows: list[dict[str, Any]]) -> Table:
    """List models: name, width, depth, heads, parameters and GFLOPs."""
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


def bench_table(result: Bench) -> Table:
    """List measurements: engine, precision, batch, images/s, latency, memory, share of the rate."""
    height, width = result.size
    rates = ", ".join(f"{name} {rate / 1e9:,.0f}" for name, rate in result.matrix_rates.items())
    table = Table(
        title=Text(f"{visible(result.model)} at {height}x{width}, {result.flops / 1e9:.2f} GFLOPs"),
        header_style="bold",
        caption=f"{result.threads} threads; a matrix product reaches {rates} GFLOPs a second",
    )
    for column in ("batch", "engine", "precision", "images/s", "p50 ms", "p99 ms", "of rate", "MB"):
        table.add_column(column, justify="left" if column in ("engine", "precision") else "right")
    for row in result.rows:
        numbers = (row.images_per_second, row.p50, row.p99, row.of_matrix_rate)
        if None in numbers:
            table.add_row(str(row.batch), row.engine, row.precision, Text(row.reason or "-"))
            continue
        speed, middle, slow, share = (number or 0.0 for number in numbers)
        table.add_row(
            str(row.batch),
            row.engine,
            row.precision,
            f"{speed:,.1f}",
            f"{1000 * middle:,.1f}",
            f"{1000 * slow:,.1f}",
            f"{100 * share:.0f} %",
            "-" if row.peak_memory is None else f"{row.peak_memory / 1e6:,.0f}",
        )
    return table


def weights_table(rows: list[dict[str, Any]]) -> Table:
    """List checkpoints: id, model, size, licence and published accuracy."""
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
    """Yield the headlines with their intervals, each class (the worst of many), the confusions.

    Args:
        evaluation: of a model.
        unknown: how many images were left out, by their class.
        both: whether two models are compared, one of which does not know those classes.
    """
    if unknown:
        who = "that not both models know" if both else "it does not know"
        counts = (f"{name} ({count:,})" for name, count in sorted(unknown.items()))
        classes = listed(counts, MOST_EXAMPLES)
        yield f"left out   {sum(unknown.values()):,} images of classes {who}: {classes}"
    for line in evaluation.lines():
        yield line if isinstance(line, str) else _rich(line)


def _rich(table: PlainTable) -> Table:
    drawn = Table(title=table.title, header_style="bold")
    for heading in table.headings:
        first = not drawn.columns
        drawn.add_column(heading, justify="left" if first else "right", no_wrap=not first)
    for row in table.rows:
        drawn.add_row(*(Text(visible(cell)) for cell in row))
    return drawn


def run_lines(run: Run) -> Iterator[str]:
    """Yield what a finished run amounts to: its headline with the interval, and its report."""
    evaluation = run.evaluation
    low, high = evaluation.interval
    yield (
        f"{evaluation.headline:12} {100 * evaluation.score:.2f} %  (95 %: {100 * low:.1f} to "
        f"{100 * high:.1f}, {evaluation.samples} images that were not trained on)"
    )
    yield f"report       {run.path / 'report.html'}"


def origin_lines(recipe: Mapping[str, Any], origins: Mapping[str, str]) -> Iterator[str]:
    """Yield each value of a resolved recipe as --set takes it, and where it comes from."""
    for name, origin in origins.items():
        value: Any = recipe
        for part in name.split("."):
            value = value[part] if isinstance(value, Mapping) else None
        text = value if isinstance(value, str) else json.dumps(value)
        yield f"{name + '=' + text:<48}  {origin}"


def check_lines(check: Check) -> Iterator[str]:
    """Yield what a check found: classes, sizes, what was chosen, problems, whether to train."""
    from vitral.data.decisions import to_lines

    classes = "1 class" if len(check.classes) == 1 else f"{len(check.classes)} classes"
    yield f"{check.source}: {check.images:,} images, {classes}"
    counts = (f"{name} {count:,}" for name, count in check.classes.items())
    yield f"classes   {listed(counts, MOST_CLASSES)}"
    yield f"balance   {check.balance:.1f} images of the largest class for one of the smallest"
    if check.sizes is not None:
        least, median, most = (f"{height}x{width}" for height, width in check.sizes)
        yield f"sizes     smallest {least}, median {median}, largest {most} (height x width)"
    if check.train is not None and check.val is not None:
        yield f"images    {check.train.images:,} to train, {check.val.images:,} held out"
    yield from to_lines(check.decisions, 9)
    if not check.problems:
        yield "problems  none" if check.full else "problems  none (--full decodes every image)"
    for code, problems in check.problems.items():
        yield f"{code:<14} {len(problems):>6,}  {check.effect(code)}"
        for problem in problems[:MOST_EXAMPLES]:
            yield f"{'':14} {'':6}  {problem.path}: {problem.reason}"
    if not check.refusal:
        yield "ready to train"


def doubts_of(result: Mapping[str, Any]) -> str:
    """Write before an answer that it is unsure, or its image foreign; mostly nothing."""
    doubts = [name for name in ("foreign", "unsure") if result[name]]
    return f"{', '.join(doubts)}:  " if doubts else ""


def truth(value: bool | None) -> str:
    """Write a yes or no in a CSV file; nothing where neither is known."""
    return "" if value is None else str(value).lower()


def cannot_tell_foreign(run: str) -> str:
    """Say that a model cannot tell foreign images, and what would help."""
    return (
        f"{run} cannot tell images of something else: it gives each one of its classes, and an "
        f"answer that is not unsure may be for such an image. To have them told, give labelled "
        f"images: vitral fit {run} DATA"
    )
