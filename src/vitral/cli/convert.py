"""vitral convert: weights of any format into Vitral, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitral.cli.app import MOVE, AsJson, ClassFile, Size, app, parse_size
from vitral.cli.printing import print_json, print_lines, print_note
from vitral.weights import formats
from vitral.wording import byte_size

if TYPE_CHECKING:
    from vitral.weights.convert import ConversionReport


@app.command(rich_help_panel=MOVE)
def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="A checkpoint (.npz .safetensors .pth .ckpt), its folder, an id, or an artifact.",
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
    classes: ClassFile = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="WEIGHTS", help="What the low-rank updates of a peft folder change."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring weights from any format into Vitral, or back, and prove that nothing changed."""
    from vitral.weights.convert import convert as convert_weights

    pixels = parse_size(size)
    report = convert_weights(
        source,
        target,
        to=to,
        size=pixels,
        changes=set_ or (),
        classes=classes,
        announce=print_note,
        base=base,
    )
    if as_json:
        print_json(report.to_dict())
    else:
        print_lines(_lines(report))


def _lines(report: ConversionReport) -> Iterator[str]:
    """Yield what was read, what was checked and what was written."""
    yield f"read      {report.source}: {report.model} from {report.format}"
    size = byte_size(report.bytes, 1)
    yield f"tensors   {report.tensors:,}, {size}; {report.left_over} left over"
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
