"""The application that the verbs hang on, the options they share, and what they may not write."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from vitral.cli.printing import print_lines
from vitral.errors import UsageError
from vitral.version import VERSION

app = typer.Typer(
    name="vitral",
    help="The complete Vision Transformer: train, evaluate and explain it on your own images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

# what one wants: the groups of `vitral --help`, in the order in which __init__ imports the verbs
LEARN = "Learn from images"
USE = "Use a model"
LOOK = "Look around"
MOVE = "Move weights and images"
UNDERSTAND = "Understand a model"

DATA = typer.Argument(
    help="Class folders, a table, tar shards, parquet, hf:NAME, digits or shapes."
)
Data = Annotated[str, DATA]
RunArgument = Annotated[
    str, typer.Argument(help="Run or artifact folder, a checkpoint, or an id like timm/NAME.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; default: the fastest.")]
Engine = Annotated[
    str, typer.Option(help="torch, openvino, or auto: on a CPU the one measured to be faster.")
]
Precision = Annotated[str, typer.Option(help="fp32, bf16, or auto: bf16 where it is fast.")]
Merge = Annotated[
    str,
    typer.Option(help="Merge similar tokens in each block: 13, 13,-1 (falling), auto, or off."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Sets = Annotated[
    float | None,
    typer.Option(help="Also a set of classes that holds the right one for this share: 0.95."),
]
SetsBy = Annotated[str, typer.Option(help="How sets are made: adaptive or least-ambiguous.")]
Tree = Annotated[
    str | None,
    typer.Option(help="Groups of classes: a table of class,parent; folders in folders; or none."),
]
ClassFile = Annotated[
    Path | None,
    typer.Option("--classes", help="File of class names: one a line, JSON, or id,name in CSV."),
]
LabelFile = Annotated[
    Path | None, typer.Option("--labels", help="Corrections of labels, as `label` writes them.")
]
Size = Annotated[str | None, typer.Option(help="Pixels, 224 or HEIGHTxWIDTH.")]


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    if version:
        print_lines([f"vitral {VERSION}"])
        raise typer.Exit


def refuse_overwrite(images: Iterable[Path], *targets: Path | None) -> None:
    """Raise UsageError if a target is one of the images that were given."""
    existing = [image for image in images if image.exists()]
    for target in targets:
        if target is not None and target.is_file() and any(map(target.samefile, existing)):
            raise UsageError(f"{target} is one of the images; write somewhere else.")


def refuse_part_of(target: Path | None, *sources: str) -> None:
    """Raise UsageError if `target` is there and is what was given to read, or lies in it."""
    if target is None or not target.exists():
        return
    real = Path(os.path.realpath(target))  # resolve() raises for a link that leads to itself
    for source in sources:
        if real.is_relative_to(os.path.realpath(source)):
            raise UsageError(f"{target} is part of {source}; write somewhere else.")


def parse_size(size: str | None) -> tuple[int, int] | None:
    """Read --size as (height, width) in pixels; one number is a square's side."""
    if size is None:
        return None
    parts = size.lower().split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts) or len(parts) > 2:
        raise UsageError(f"--size is pixels, 224 or HEIGHTxWIDTH like 224x320, not '{size}'.")
    return int(parts[0]), int(parts[-1])


def typed_without(*dropped: str) -> list[str]:
    """Return the words of the command as typed, without these options and their values."""
    words: list[str] = []
    typed = iter(sys.argv[1:])
    for word in typed:
        if word in dropped:
            next(typed, None)
        elif word.partition("=")[0] not in dropped:
            words.append(word)
    return words
