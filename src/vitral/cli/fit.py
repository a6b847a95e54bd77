"""vitral fit: what training fits at its end, fitted to any model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitral.cli.app import USE, AsJson, Data, Device, RunArgument, app
from vitral.cli.printing import print_json, print_lines, print_note, progress


@app.command(rich_help_panel=USE)
def fit(
    run: RunArgument,
    data: Data,
    out_: Annotated[
        Path | None,
        typer.Option("--out", help="A new artifact folder; default: into the artifact itself."),
    ] = None,
    tree: Annotated[
        Path | None, typer.Option(help="Groups of the classes: a table of class,parent.")
    ] = None,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Leave out classes the model does not know.")
    ] = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Fit temperature, threshold, answer sets, and what tells foreign images; weights stay.

    Training does so at its end. Give weights from elsewhere labelled images of their classes,
    better ones that they have not learnt from.
    """
    from vitral.fitting import fit as fit_to

    with progress("looking") as tick:
        result = fit_to(
            run,
            data,
            out=out_,
            tree=tree,
            allow_unknown=allow_unknown,
            device=device,
            tick=tick,
            announce=print_note,
        )
    if as_json:
        print_json(result.to_dict())
    else:
        print_lines(result.lines())
