"""vitral report: the page of a run once more."""

from pathlib import Path
from typing import Annotated

import typer

from vitral.cli.app import UNDERSTAND, Device, app
from vitral.cli.printing import print_error, print_lines


@app.command(rich_help_panel=UNDERSTAND)
def report(
    run: Annotated[Path, typer.Argument(help="A run folder, as `vitral train` made it.")],
    lang: Annotated[str, typer.Option(help="Language of the page: en or ko.")] = "en",
    out_: Annotated[
        Path | None, typer.Option("--out", help="Where to; default: RUN/report.html.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Its images, where they lie elsewhere now.")
    ] = None,
    device: Device = None,
) -> None:
    """Write report.html of a run again: in another language, or after Vitral was updated."""
    from vitral.report import rerender

    path = rerender(run, lang, out_, data=data, device=device, announce=print_error)
    print_lines([f"written: {path}"])
