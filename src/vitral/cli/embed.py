"""The verb that writes what the head reads of images: embed."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitral.cli.app import AsJson, Device, RunArgument, app, complain, out, print_json, progress
from vitral.errors import MachineError, UsageError

if TYPE_CHECKING:
    from vitral.features import Embedding


@app.command()
def embed(
    run: RunArgument,
    data: Annotated[
        list[str],
        typer.Argument(help="Images, folders of images, or one source of labelled images."),
    ],
    out_: Annotated[Path, typer.Option("--out", help="F.npy, with F.csv beside, or F.parquet.")],
    batch: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 64,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Write what the head reads of each image, one row of numbers per image.

    F.npy holds the rows (float32), F.csv their paths and labels in the same order; F.parquet holds
    both, in the columns path, label and embedding.
    """
    _refuse_place(out_, data)
    from vitral import features
    from vitral.classifier import load

    classifier = load(run, device=device, announce=complain)
    with progress("embedding") as tick:
        found = features.embed(classifier, data, batch=batch, tick=tick)
    for problem in found.failed:
        complain(f"{problem.path}: {problem.reason}")
    if out_.suffix == ".npy":
        _write_array(out_, found)
    else:
        _write_parquet(out_, found)
    rows, width = found.vectors.shape
    if as_json:
        print_json({"rows": rows, "width": width, "out": str(out_)})
    else:
        out.print(f"written: {out_}: {rows:,} images, {width:,} numbers each", markup=False)


def _refuse_place(target: Path, data: list[str]) -> None:
    """Refuse another suffix, and to write over what may be the user's own."""
    if target.suffix not in (".npy", ".parquet"):
        raise UsageError(f"--out ends in .npy or .parquet, and {target} does not.")
    if target.suffix == ".parquet":
        _arrow()
    # Path.resolve() would raise for a link that leads to itself
    beside, sources = target.with_suffix(".csv"), [Path(os.path.realpath(name)) for name in data]
    if target.suffix == ".npy":
        theirs = beside.exists() and (not target.exists() or beside.resolve() in sources)
    else:  # a data set may be a folder of such files
        beside = target
        theirs = target.exists() and any(map(target.resolve().is_relative_to, sources))
    if theirs:
        raise UsageError(f"{beside} is there already and may be yours; write somewhere else.")


def _write_array(path: Path, found: Embedding) -> None:
    from vitral.storage import files

    text = io.StringIO()
    writer = csv.writer(text)
    if found.labels is None:
        writer.writerows([["path"], *([name] for name in found.paths)])
    else:
        writer.writerows([("path", "label"), *zip(found.paths, found.labels, strict=True)])
    files.write_arrays(path, found.vectors)
    files.write_text(path.with_suffix(".csv"), text.getvalue())


def _write_parquet(path: Path, found: Embedding) -> None:
    arrow, parquet = _arrow()
    from vitral.storage import files

    rows, width = found.vectors.shape
    values = arrow.array(found.vectors.ravel())
    names = [name.encode("utf-8", "backslashreplace").decode() for name in found.paths]
    labels = [None] * rows if found.labels is None else found.labels
    table = arrow.table(
        {
            "path": arrow.array(names, arrow.string()),
            "label": arrow.array(labels, arrow.string()),
            "embedding": arrow.FixedSizeListArray.from_arrays(values, width),
        }
    )
    files.write_file(path, lambda temporary: parquet.write_table(table, temporary))


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError:
        raise MachineError(
            "A .parquet file needs pyarrow: pip install 'vitral[data]', or write a .npy file."
        ) from None
    return pyarrow, parquet
