"""vitral embed: what the head reads of images, as numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitral.cli import in_parts
from vitral.cli.app import (
    USE,
    AsJson,
    Device,
    Engine,
    Merge,
    Precision,
    RunArgument,
    app,
    refuse_part_of,
)
from vitral.cli.in_parts import Devices
from vitral.cli.printing import print_error, print_json, print_lines, progress
from vitral.errors import MachineError, UsageError

if TYPE_CHECKING:
    from vitral.features import Embedding


@app.command(rich_help_panel=USE)
def embed(
    run: RunArgument,
    data: Annotated[
        list[str],
        typer.Argument(help="Images, folders of images, or one source of labelled images."),
    ],
    out_: Annotated[
        Path,
        typer.Option("--out", help="F.npy, with F.csv beside; F.parquet; of shards, a folder."),
    ],
    batch: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 64,
    device: Device = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    merge: Merge = "off",
    devices: Devices = None,
    as_json: AsJson = False,
) -> None:
    """Write what the head reads of each image, one row of numbers per image.

    F.npy holds the rows (float32), F.csv their paths and labels in the same order; F.parquet holds
    both, in the columns path, label and embedding. Of tar shards a folder gets a parquet file for
    each, in any number of processes, and goes on where it was when it is asked for again.
    """
    how = in_parts.How(device, engine, precision, merge)
    own = None if out_.suffix else out_
    asked = in_parts.Asked(run, data, own, devices, how, batch)
    if in_parts.wanted(asked):
        from vitral import parts

        in_parts.write_and_tell(asked, lambda _: parts.embedding(), as_json=as_json)
        return
    _check_target(out_, data)
    from vitral import features

    classifier = how.load(run)
    with progress("embedding") as tick:
        embedding = features.embed(classifier, data, batch=batch, tick=tick)
    for problem in embedding.failed:
        print_error(f"{problem.path}: {problem.reason}")
    if out_.suffix == ".npy":
        _write_array(out_, embedding)
    else:
        _write_parquet(out_, embedding)
    rows, width = embedding.vectors.shape
    if as_json:
        print_json({"rows": rows, "width": width, "out": str(out_)})
    else:
        print_lines([f"written: {out_}: {rows:,} images, {width:,} numbers each"])


def _check_target(target: Path, data: list[str]) -> None:
    """Raise UsageError for another suffix, and for a file that may be the user's own."""
    match target.suffix:
        case ".npy":
            beside = target.with_suffix(".csv")
            if beside.exists() and not target.exists():  # else both are an earlier embed's
                raise UsageError(
                    f"{beside} is there already and may be yours; write somewhere else."
                )
            refuse_part_of(beside, *(name for name in data if not Path(name).is_dir()))
        case ".parquet":
            _arrow()  # a missing library is reported before the work
            refuse_part_of(target, *data)  # a data set may be a folder of such files
        case _:
            raise UsageError(
                f"--out ends in .npy or .parquet, or is a folder for tar shards, not {target}."
            )


def _write_array(path: Path, embedding: Embedding) -> None:
    from vitral.storage import files

    rows: Any = [("path",), *((name,) for name in embedding.paths)]
    if embedding.labels is not None:
        rows = [("path", "label"), *zip(embedding.paths, embedding.labels, strict=True)]
    files.write_arrays(path, embedding.vectors)
    files.write_csv(path.with_suffix(".csv"), rows)


def _write_parquet(path: Path, embedding: Embedding) -> None:
    arrow, parquet = _arrow()
    from vitral.storage import files

    rows, width = embedding.vectors.shape
    values = arrow.array(embedding.vectors.ravel())
    names = [name.encode("utf-8", "backslashreplace").decode() for name in embedding.paths]
    labels = [None] * rows if embedding.labels is None else embedding.labels
    table = arrow.table(
        {
            "path": arrow.array(names, arrow.string()),
            "label": arrow.array(labels, arrow.string()),
            "embedding": arrow.FixedSizeListArray.from_arrays(values, width),
        }
    )
    files.write_file(path, lambda temporary: parquet.write_table(table, temporary))


def _arrow() -> tuple[Any, Any]:
    """Import pyarrow and pyarrow.parquet, or raises MachineError."""
    try:
        import pyarrow  # type: ignore[import-untyped]
        from pyarrow import parquet
    except ImportError:
        raise MachineError(
            "A .parquet file needs pyarrow: pip install 'vitral[data]', or write a .npy file."
        ) from None
    return pyarrow, parquet
