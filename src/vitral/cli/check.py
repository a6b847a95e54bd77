"""vitral check: what is wrong with images, before time is spent on them."""

from typing import Annotated

import typer

from vitral.cli.app import LOOK, AsJson, ClassFile, Data, LabelFile, Tree, app
from vitral.cli.printing import print_json, print_lines, progress
from vitral.cli.tables import check_lines
from vitral.errors import DataError


@app.command(rich_help_panel=LOOK)
def check(
    data: Data,
    classes: ClassFile = None,
    labels: LabelFile = None,
    full: Annotated[bool, typer.Option("--full", help="Decode every image.")] = False,
    tree: Tree = None,
    as_json: AsJson = False,
) -> None:
    """Look at images before training: classes, sizes, the split, and all that is wrong."""
    from vitral.data.check import check as check_data

    with progress("decoding") as tick:
        result = check_data(
            data,
            full=full,
            class_file="" if classes is None else str(classes),
            label_file="" if labels is None else str(labels),
            tree=tree,
            tick=tick,
        )
    if as_json:
        print_json(result.to_dict())
    else:
        print_lines(check_lines(result))
    if result.refusal:
        raise DataError(result.refusal)
