"""Printing for the verbs: results on stdout; notes, errors and progress on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

from vitral.wording import first_lines, visible

if TYPE_CHECKING:
    from vitral.data.sources import Problem


def print_lines(lines: Iterable[Any]) -> None:
    """Print lines of text, in which nothing is markup, and tables, on stdout."""
    console = Console(highlight=False, soft_wrap=True, emoji=False)
    for line in lines:
        console.print(visible(line) if isinstance(line, str) else line, markup=False)


def print_json(values: Any) -> None:
    """Print plain values as indented JSON on stdout, Korean kept as it is."""
    sys.stdout.write(json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def print_note(message: str) -> None:
    """Print what is no result on stderr; what other libraries say may have several lines."""
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    console.print(visible(message, but="\n"), markup=False)


def print_error(message: str) -> None:
    """Print one line on stderr about what went wrong, or what the reader should know of it."""
    print_note(f"vitral: {message}")


def print_skipped(problems: Iterable[Problem], more: str = "") -> None:
    """Print the first of the images that were left out; `more` ends the line about the others."""
    for line in first_lines((f"{one.path}: {one.reason}" for one in problems), what=more):
        print_error(line)


@contextmanager
def progress(doing: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal, nothing elsewhere; yield a function of (done, total).

    Until it is called with a total it moves and counts.
    """
    if not sys.stderr.isatty():  # rich takes FORCE_COLOR for a terminal, and 13 ends with a line
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def is_first_process() -> bool:
    """Tell whether this process speaks for all that torchrun started."""
    return os.environ.get("RANK", "0") == "0"
