"""The application that the verbs hang on, the options they share, and how they print."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from vitral.errors import UsageError
from vitral.version import VERSION

if TYPE_CHECKING:
    from vitral.data.near_duplicates import Tick

app = typer.Typer(
    name="vitral",
    help="The complete Vision Transformer: train, evaluate and explain it on your own images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console(highlight=False, soft_wrap=True, emoji=False)

Data = Annotated[
    str,
    typer.Argument(help="Class folders, a CSV, tar shards, parquet, hf:NAME, digits or shapes."),
]
RunArgument = Annotated[
    str, typer.Argument(help="Run or artifact folder, a checkpoint, or an id like timm/NAME.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; default: the fastest.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Size = Annotated[str | None, typer.Option(help="Pixels, 224 or HEIGHTxWIDTH.")]


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    if version:
        out.print(f"vitral {VERSION}")
        raise typer.Exit


def complain(message: str, *, plain: bool = False) -> None:
    """One line on stderr; a plain one is no complaint."""
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    console.print(message if plain else f"vitral: {message}", markup=False)


@contextmanager
def progress(doing: str) -> Iterator[Tick]:
    """A bar on a terminal, nothing elsewhere; until it is told of a total it moves and counts."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def first_process() -> bool:
    """Whether this process speaks for all that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def spare(target: Path | None, images: list[Path]) -> None:
    """Refuse to write over an image that was given."""
    if (
        target is not None
        and target.is_file()
        and any(target.samefile(i) for i in images if i.exists())
    ):
        raise UsageError(f"{target} is one of the images; write somewhere else.")


def print_json(values: Any) -> None:
    """Indented, Korean kept as it is."""
    sys.stdout.write(json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def pixels(size: str | None) -> int | tuple[int, int] | None:
    """What --size says: a side, or (height, width)."""
    if size is None:
        return None
    parts = size.lower().split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts) or len(parts) > 2:
        raise UsageError(f"--size is pixels, 224 or HEIGHTxWIDTH like 224x320, not '{size}'.")
    numbers = [int(part) for part in parts]
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])
