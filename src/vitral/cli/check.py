"""The verbs about images: check, shard."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vitral.cli import tables
from vitral.cli.app import AsJson, app, complain, out, print_json, progress
from vitral.errors import DataError
from vitral.wording import first_lines

Source = Annotated[
    str,
    typer.Argument(help="Folder, CSV file, tar shards, parquet files, hf:NAME, digits, shapes."),
]


@app.command()
def check(
    data: Source,
    full: Annotated[bool, typer.Option("--full", help="Decode every image.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at images before training: classes, sizes, the split, and all that is wrong."""
    from vitral.data.check import check as look

    with progress("decoding") as tick:
        found = look(data, full=full, tick=tick)
    if as_json:
        print_json(found.to_dict())
    else:
        for line in tables.check_lines(found):
            out.print(line, markup=False)
    if found.refusal:
        raise DataError(found.refusal)


@app.command()
def shard(
    data: Source,
    out_: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    size: Annotated[str, typer.Option(help="Of each shard, about: 256MB, 1GB.")] = "256MB",
    allow_unreadable: Annotated[
        bool, typer.Option("--allow-unreadable", help="Go on with more than 1 % unreadable.")
    ] = False,
) -> None:
    """Write images as tar shards, for many machines or a bucket; the split goes with them."""
    from vitral.data import write_shards
    from vitral.data.datasets import open_dataset
    from vitral.storage import files

    most = write_shards.parse_size(size)
    files.refuse_existing(out_)
    files.refuse_inside(out_, data)
    with progress("looking") as tick:
        opened = open_dataset(data, allow_unreadable=allow_unreadable, tick=tick)
    left_out = list(opened.problems)
    with progress("writing") as tick:
        files.write_folder(
            out_,
            lambda folder: left_out.extend(write_shards.pack(folder, opened, size=most, tick=tick)),
        )
    skipped = (f"{problem.path}: {problem.reason}" for problem in left_out)
    for line in first_lines(skipped, what=f"; see: vitral check {data}"):
        complain(line)
    count = len(list(out_.glob("*.tar")))
    out.print(
        f"{out_}: {len(opened.train):,} train and {len(opened.val):,} {opened.val.name} images of "
        f"{len(opened.classes)} classes in {count} shards",
        markup=False,
    )
    out.print(f"next: vitral train {shlex.quote(str(out_))}", markup=False)
