"""The verb that moves weights between formats: convert."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitral.cli.app import AsJson, Size, app, complain, out, pixels, print_json
from vitral.weights import formats

if TYPE_CHECKING:
    from vitral.weights.convert import ConversionReport


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="A checkpoint (.npz .safetensors .pth .bin), its folder, an id, or an artifact.",
        ),
    ],
    target: Annotated[
        Path, typer.Argument(metavar="DST", help="A new folder, or a new file by its suffix.")
    ],
    to: Annotated[str, typer.Option(help=f"vitral, {', '.join(formats.names())}.")] = "vitral",
    size: Size = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="What tensors do not tell: model.heads=6, images.crop=0.9."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring weights from any format into Vitral, or back, and prove that nothing changed."""
    from vitral.weights.convert import convert as convert_weights

    side = pixels(size)
    shape = (side, side) if isinstance(side, int) else side
    done = convert_weights(source, target, to=to, size=shape, changes=set_ or (), announce=complain)
    if as_json:
        print_json(done.to_dict())
    else:
        for line in _lines(done):
            out.print(line, markup=False)


def _lines(report: ConversionReport) -> Iterator[str]:
    """What was checked."""
    yield f"read      {report.source}: {report.model} from {report.format}"
    yield f"tensors   {report.tensors:,}, {report.bytes / 1e6:.1f} MB; {report.left_over} left over"
    if report.exact is not None:
        back = "come back bit for bit" if report.exact else "do not come back bit for bit"
        yield f"exact     the file's own tensors {back}"
    for format, value in report.difference.items():
        largest = report.largest[format]
        yield f"logits    as {format} computes them: max |difference| {value:.1e} of {largest:.3g}"
    for reason in report.not_compared.values():
        yield f"logits    not compared: {reason}"
    for note in report.notes:
        yield f"note      {note}"
    yield f"written   {report.target} ({report.to})"
