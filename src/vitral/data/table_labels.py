"""Read the labels in the cells of a table: one, several in a cell, or a column for each class."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vitral.data import names
from vitral.data.decisions import Decision
from vitral.data.table_text import Cell
from vitral.errors import DataError
from vitral.wording import listed

YES = frozenset({"1", "1.0", "true", "yes", "t", "y"})
NO = frozenset({"0", "0.0", "false", "no", "f", "n"})
UNKNOWN = frozenset({"-1", "-1.0", "", "nan", "none", "null", "na", "n/a"})

_MISSING = frozenset({"nan", "<na>", "#n/a"})  # what programs write for an empty cell
_WHOLE = re.compile(r"-?\d+\.0+")
_FRACTION = re.compile(r"-?\d*\.\d+([eE][-+]?\d+)?")
_AMOUNTS = 20
_SEPARATORS = re.compile(r"[|;]")
_LIST = re.compile(r"\s*(\[.*\]|\(.*\)|\{.*\})\s*", re.DOTALL)


@dataclass(slots=True)
class Labels:
    """The labels of the rows of a table.

    Attributes:
        labels: of each row, sorted.
        multi_label: whether a row may have any number of them.
        may_be_empty: whether a row may have none.
        decisions: what was chosen to read them.
    """

    labels: list[tuple[str, ...]]
    multi_label: bool
    may_be_empty: bool
    decisions: list[Decision] = field(default_factory=list)


def of_column(name: str, cells: Sequence[Cell], where: str) -> Labels:
    """Reads a column of labels; `where` is the table.

    Several labels in a cell are a list, or have | or ; between them; in a column that is called
    labels or tags, or the like, also a comma or blanks, where the same words come again in other
    company.
    """
    decisions: list[Decision] = []
    plural = names.is_one_of(name, names.MULTI_LABEL_COLUMNS)
    cells = _as_written([("" if str(cell).casefold() in _MISSING else cell) for cell in cells])
    several, how = _separated(cells, plural)
    if several is None and plural:
        several, how = _by_recurrence(name, [str(cell) for cell in cells])
    if several is None:
        if how:
            decisions.append(Decision("labels", f"Column '{name}' of {where}: {how}"))
        single = [_cleaned([cell] if isinstance(cell, str) else cell) for cell in cells]
        _refuse_amounts(name, single, where)
        multi_label = plural and not all(single)
        return Labels(single, multi_label, multi_label, decisions)
    labels = [_cleaned(own) for own in several]
    decisions.append(
        Decision("labels", f"Column '{name}' of {where} holds several labels in a cell, {how}.")
    )
    return Labels(labels, True, plural, decisions)


def _as_written(cells: Sequence[Cell]) -> list[Cell]:
    """Numbers without the fraction that a table with empty cells gives them: 3 for 3.0."""
    if all(not cell or (isinstance(cell, str) and _WHOLE.fullmatch(cell)) for cell in cells):
        return [str(cell).partition(".")[0] for cell in cells]
    return list(cells)


def _refuse_amounts(name: str, labels: Sequence[tuple[str, ...]], where: str) -> None:
    """Raises DataError for a column of numbers with fractions, which are no classes."""
    values = {own[0] for own in labels if own}
    if len(values) > _AMOUNTS and all(_FRACTION.fullmatch(value) for value in values):
        raise DataError(
            f"Column '{name}' of {where} holds {len(values):,} different numbers such as "
            f"{min(values)}: an amount and no class. Vitral learns classes; write the range that "
            f"each belongs to."
        )


def _cleaned(own: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({unicodedata.normalize("NFC", name).strip() for name in own} - {""}))


def _separated(cells: Sequence[Cell], plural: bool) -> tuple[list[list[str]] | None, str]:
    """(the labels of each cell, what tells them apart); None where nothing certain does."""
    if any(isinstance(cell, list) for cell in cells):
        several = [cell if isinstance(cell, list) else [cell] for cell in cells]
        return several, "as lists"
    texts = [str(cell) for cell in cells]
    filled = [text for text in texts if text]
    if filled and all(_LIST.fullmatch(text) for text in filled):
        return [_list(text) for text in texts], f"written as lists, like {filled[0][:60]}"
    marks = sorted({mark for text in texts for mark in _SEPARATORS.findall(text)})
    if marks:
        return [_SEPARATORS.split(text) for text in texts], f"with {' or '.join(marks)} between"
    numbers = next((text for text in filled if re.fullmatch(r"\d+( +\d+)+", text)), "")
    if numbers and all(re.fullmatch(r"\d+( +\d+)*", text) for text in filled):
        return [text.split() for text in texts], f"as numbers with blanks between, like '{numbers}'"
    return None, ""


def _list(text: str) -> list[str]:
    """The items of a list as JSON, Python or numpy write it."""
    if not text:
        return []
    quoted = [one or other for one, other in re.findall(r"'([^']*)'|\"([^\"]*)\"", text)]
    for read in (json.loads, ast.literal_eval):
        try:
            items = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(items, list | tuple | set) and all(
            isinstance(item, str | int | float) for item in items
        ):
            # Python joins the words that numpy puts beside one another: ['a' 'b']
            return quoted if len(quoted) > len(items) else [str(item) for item in items]
    if quoted:
        return quoted
    inside = text.strip()[1:-1]
    return re.split(r"," if "," in inside else r"\s+", inside)


def _by_recurrence(name: str, texts: Sequence[str]) -> tuple[list[list[str]] | None, str]:
    """Labels that commas or blanks separate: the same words come in several combinations.

    The names of birds have blanks too, but few of their words come again.
    """
    cells = sorted(set(texts) - {""})
    for mark, pattern in (("commas", r"\s*,\s*"), ("blanks", r"\s+")):
        parts = {cell: [word for word in re.split(pattern, cell) if word] for cell in cells}
        shown = next((cell for cell, words in parts.items() if len(words) > 1), "")
        if not shown:
            continue
        counts = Counter(word for words in parts.values() for word in set(words))
        recur = max(counts.values()) > 1
        few = len(counts) <= len(cells)
        if recur and (few or names.is_one_of(name, names.TAG_COLUMNS)):
            several = [[word for word in re.split(pattern, text) if word] for text in texts]
            return several, f"with {mark} between, like '{shown}'"
        return None, (
            f"'{shown}' is taken as one label; if it is several, write | between them "
            f"(|, ; and lists are understood)."
        )
    return None, ""


def of_columns(columns: Mapping[str, Sequence[str]], where: str) -> Labels:
    """Reads a column of yes and no for each class; exactly one yes in every row is one label.

    What is unknown (-1 beside 0, or empty) is taken as no, and said.
    """
    cells = {name: [cell.casefold() for cell in own] for name, own in columns.items()}
    values = Counter(cell for own in cells.values() for cell in own)
    minus = values["-1"] + values["-1.0"]
    zeros = sum(values[value] for value in NO)
    rows = len(next(iter(cells.values())))
    labels = [
        _cleaned(name for name, own in cells.items() if own[row] in YES) for row in range(rows)
    ]
    multi_label = not all(len(own) == 1 for own in labels)
    how = "so an image has any number of labels" if multi_label else "one yes in each row"
    decisions = [
        Decision("labels", f"{where} has a column for each class, {listed(columns)}: {how}.")
    ]
    if minus and not zeros:
        decisions.append(Decision("labels", f"-1 is the no of {where}, which has no 0."))
    unknown = sum(values[value] for value in UNKNOWN) - (0 if zeros else minus)
    if unknown:
        kinds = {"-1": minus if zeros else 0, "empty": unknown - (minus if zeros else 0)}
        told = " and ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
        decisions.append(
            Decision("labels", f"Cells of {where} that say neither yes nor no ({told}) are no.")
        )
    return Labels(labels, multi_label, True, decisions)
