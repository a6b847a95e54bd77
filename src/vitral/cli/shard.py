"""vitral shard: images as tar files."""

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from vitral.cli.app import MOVE, Data, app
from vitral.cli.printing import print_lines, print_skipped, progress


@app.command(rich_help_panel=MOVE)
def shard(
    data: Data,
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
        dataset = open_dataset(data, allow_unreadable=allow_unreadable, tick=tick)
    left_out = list(dataset.problems)
    with progress("writing") as tick:
        pack = partial(write_shards.pack, data=dataset, size=most, tick=tick)
        files.write_folder(out_, lambda folder: left_out.extend(pack(folder)))
    print_skipped(left_out, f"; see: vitral check {data}")
    count = len(list(out_.glob("*.tar")))
    print_lines(
        [
            f"{out_}: {len(dataset.train):,} train and {len(dataset.val):,} {dataset.val.name} "
            f"images of {len(dataset.classes)} classes in {count} shards",
            f"next: vitral train {shlex.quote(str(out_))}",
        ]
    )
