"""Recognise what kind of source the user names: each kind knows its own names."""

from __future__ import annotations

import contextlib
from pathlib import Path

from vitral.data import (
    builtin,
    csv_files,
    file_names,
    folder_splits,
    hub,
    listed_folders,
    other_files,
    problems,
    tar_shards,
)
from vitral.data.sources import DataLayout, SourceOptions
from vitral.data.table_columns import read_sheet
from vitral.errors import DataError

# In this order: a folder of a built-in name is reached as ./digits, a folder that holds train.csv
# or shards is not one of class folders.
KINDS = (
    builtin.layout,
    hub.layout,
    csv_files.layout,
    listed_folders.layout,
    tar_shards.layout,
    file_names.layout,
    folder_splits.layout,
)


def recognise(source: str, options: SourceOptions) -> DataLayout | None:
    """Finds the layout of a source; None for what is no source: a single picture, a wrong path.

    Raises DataError for a source of a known kind that cannot be used.
    """
    name = source.removeprefix("file://")
    layouts = (layout(name, options) for layout in KINDS)
    return next((layout for layout in layouts if layout is not None), None)


def find(source: str, options: SourceOptions) -> DataLayout:
    """Finds the layout of a source; DataError, with the closest name, if there is none."""
    layout = recognise(source, options)
    if layout is None:
        problems.existing(source.removeprefix("file://"))
        kind = other_files.kind_of(source)
        if kind is not None:
            way = f"{kind.way[0].upper()}{kind.way[1:]}."
            raise DataError(f"{source} is of a kind ({kind.name}) that Vitral does not read. {way}")
        if source.lower().endswith(".json"):
            read_sheet(Path(source.removeprefix("file://")), options.labelled)  # raises the reason
        holding = "one folder for each class" if options.labelled else "images"
        raise DataError(f"{source} is a file; name a folder that holds {holding}.")
    return layout


def is_held_out_part(source: str | Path, trained_on: str) -> bool:
    """Tells whether `source` is the val/ or the like of the data that the model was trained on."""
    with contextlib.suppress(DataError, TypeError):
        held = find(trained_on, SourceOptions()).held_out
        if held is None:
            return False
        part = Path(str(held)).resolve()
        asked = Path(source).resolve()
        # or the folder in it: seg_test/ of seg_test/seg_test/, val/ of val/metadata.csv
        whole = Path(trained_on).resolve()
        below = asked != whole and asked.is_relative_to(whole)
        return part == asked or (below and part.is_relative_to(asked))
    return False
