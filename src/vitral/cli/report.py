"""The verb that writes the page of a run once more: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitral.cli.app import Device, app, complain, out


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run folder, as `vitral train` made it.")],
    lang: Annotated[str, typer.Option(help="Language of the page: en or ko.")] = "en",
    out_: Annotated[
        Path | None, typer.Option("--out", help="Where to; default: RUN/report.html.")
    ] = None,
    device: Device = None,
) -> None:
    """Write report.html of a run again: in another language, or after Vitral was updated."""
    from vitral.report import rerender

    path = rerender(run, lang, out_, device=device, announce=complain)
    out.print(f"written: {path}", markup=False)
