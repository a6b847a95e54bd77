"""vitral repeat: a run once more, and whether the result is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitral.cli.app import UNDERSTAND, AsJson, Device, app
from vitral.cli.printing import print_json, print_lines, print_note


@app.command(rich_help_panel=UNDERSTAND)
def repeat(
    run: Annotated[str, typer.Argument(help="A finished run, its artifact, or a pushed one's id.")],
    data: Annotated[
        str | None, typer.Argument(help="Its images, where they lie elsewhere now.")
    ] = None,
    out_: Annotated[Path | None, typer.Option("--out", help="Run folder to make.")] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Train a model again from its recipe and images; is the result the same, and if not, why?"""
    from vitral.planning.repeat import repeat as repeat_run

    done = repeat_run(run, data, out=out_, device=device, announce=print_note)
    if as_json:
        print_json(done.to_dict())
    else:
        print_lines(done.lines())
