"""Names that people give to the columns of a table and to the parts of a split.

CSV files, tar shards and tables of Hugging Face are all read by these names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, TypeVar

HeldOutName = Literal["val", "test"]
T = TypeVar("T")

PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img")

# Columns that hold a label; where a table has several of them, the first of these is read.
LABEL_COLUMNS = (
    "label",
    "labels",
    "class",
    "classes",
    "category",
    "categories",
    "target",
    "fine_label",
    "class_name",
    "cls",
    "tags",
)
MULTI_LABEL_COLUMNS = frozenset({"labels", "classes", "categories", "tags"})  # in a CSV file

TRAIN = ("train", "training")
HELD_OUT = ("val", "valid", "validation", "test", "testing")


def held_out_name(name: str) -> HeldOutName:
    """Calls a held-out part by one of two names, whatever of HELD_OUT the user calls it."""
    return "test" if name.lower().startswith("test") else "val"


def split_of(words: Iterable[str]) -> Literal["train", "val", "test"]:
    """Says which part of a split lower-case words speak of: training, unless only another."""
    known = [word for word in words if word in (*TRAIN, *HELD_OUT)]
    return held_out_name(known[0]) if known and not {*known} & {*TRAIN} else "train"


def divided(parts: Mapping[str, T]) -> tuple[T | None, T | None, HeldOutName]:
    """Picks the training part and the held-out one by their lower-case names, and names the last.

    None where there is no such part; of several held-out parts the first of HELD_OUT is taken.
    """
    train = next((parts[name] for name in TRAIN if name in parts), None)
    held_out = next((name for name in HELD_OUT if name in parts), "")
    return train, parts.get(held_out), held_out_name(held_out)
