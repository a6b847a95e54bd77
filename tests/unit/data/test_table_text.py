"""Whatever stands in a file, a table is read or refused with a sentence."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from vitral.data.table_columns import read_sheet
from vitral.data.table_text import SUFFIXES
from vitral.errors import DataError

CELLS = [
    *("path", "label", "labels", "split", "train", "a.png", "b/c.png", "x y.png", "a.png 1", "nan"),
    *("0", "1", "-1", "1.5", "", '"', '""', "'", "[1]", "['a' 'b']", "{", "}", "[", "]", ":", "#"),
    *("|", ";", "\n", "\r\n", "\t", " ", "\0", "é", "🦉", "sep=;", "..", "/", "C:\\a.png", "true"),
    *('{"path":"a.png","label":"x"}', "annotations", "images", "<b>"),
]


def anything(dice: random.Random, depth: int = 0) -> object:
    """Any JSON value, with the keys of tables among its own."""
    kind = dice.random()
    if depth > 2 or kind < 0.4:
        return dice.choice(["a.png", "x", 1, None, True, 1.5, "b/c.png"])
    if kind < 0.7:
        return [anything(dice, depth + 1) for _ in range(dice.randint(0, 3))]
    keys = ("path", "label", "images", "annotations", "categories", "id", "file_name", "image_id")
    return {dice.choice(keys): anything(dice, depth + 1) for _ in range(dice.randint(0, 4))}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_any_text_is_a_table_or_gets_its_sentence(tmp_path: Path, suffix: str) -> None:
    dice = random.Random(suffix)
    path = tmp_path / f"list{suffix}"
    read = 0
    for _ in range(150):
        between = dice.choice([",", ";", "\t", " ", "\n", ""])
        text = between.join(dice.choice(CELLS) for _ in range(dice.randint(0, 20)))
        if "json" in suffix:
            text = json.dumps(anything(dice))
        elif dice.random() < 0.5:
            text = f"path{between or ','}label\n{text}"
        path.write_bytes(text.encode())
        for labelled in (True, False):
            try:
                sheet = read_sheet(path, labelled)
            except DataError as error:
                assert str(path) in str(error)
                continue
            read += 1
            assert all(row.name or row.lacks for row in sheet.rows)
            assert sheet.multi_label or all(len(row.labels) < 2 for row in sheet.rows)
    assert read > 5
