"""vitral export: a network for another runtime, with a proof."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitral.cli.app import MOVE, AsJson, Merge, RunArgument, app
from vitral.cli.printing import print_json, print_lines, print_note


@app.command(rich_help_panel=MOVE)
def export(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="A new folder.")],
    to: Annotated[
        str, typer.Option(help="openvino, onnx, torch, executorch, or web (transformers.js).")
    ],
    precision: Annotated[
        str, typer.Option(help="fp32, bf16, fp16, int8, or int8-weights, as far as --to has it.")
    ] = "fp32",
    data: Annotated[
        str | None, typer.Option(help="Images for proof and calibration; default: the training's.")
    ] = None,
    merge: Merge = "off",
    as_json: AsJson = False,
) -> None:
    """Write a network for another runtime, and prove on real images that it answers the same.

    A folder with the network, its classes and preprocessing, a README and a script that needs the
    runtime alone. In 8 bits, layers that cost accuracy stay in floating point and are named.
    """
    from vitral.export.export import export as export_run

    result = export_run(
        run, to, out, precision=precision, data=data, merge=merge, announce=print_note
    )
    if as_json:
        print_json(result.to_dict())
    else:
        print_lines([f"written   {out}", *result.lines()])
