"""Pieces of sentences: lists that end in "and 3 more", "did you mean", sizes and times."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from rich import filesize

CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def visible(text: str, but: str = "") -> str:
    """Write control characters as their escapes, except those of `but`.

    A class or a file may have any name, and none may break a line or command a terminal.
    """
    return CONTROLS.sub(
        lambda found: found[0] if found[0] in but else found[0].encode("unicode_escape").decode(),
        text,
    )


def listed(names: Iterable[object], most: int = 5) -> str:
    """Join the first names with commas and say how many more there are; '' for none."""
    words = [str(name) for name in names]
    more = len(words) - most
    return ", ".join(words[:most]) + (f" and {more:,} more" if more > 0 else "")


def first_lines(lines: Iterable[str], most: int = 5, what: str = "") -> list[str]:
    """Keep the first lines of a list, and add one that counts the rest: '... and 3 more'."""
    shown = list(lines)
    more = len(shown) - most
    return [*shown[:most], f"... and {more:,} more{what}"] if more > 0 else shown


def closest(name: str, names: Iterable[str]) -> str | None:
    """Find the known name that is most like `name`, whatever the case of its letters."""
    folded = {other.casefold(): other for other in names}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    return folded[near[0]] if near else None


def did_you_mean(name: str, names: Iterable[str], otherwise: str | None = None) -> str:
    """Suggest the closest known name; say `otherwise`, or all that is known, if none is close."""
    names = sorted(names)
    if near := closest(name, names):
        return f"did you mean '{near}'?"
    return f"known: {', '.join(names)}." if otherwise is None else otherwise


def byte_size(count: float, digits: int | None = None) -> str:
    """Say how much so many bytes are, to read: '40 kB', '850 MB', '1.2 GB'.

    With two digits, 12.34 GB that are needed are not written as the 12.31 GB that are free.
    """
    if digits is None:
        digits = 0 if count < 999_500_000 else 1
    return filesize.decimal(round(count), precision=digits)


def clock(seconds: float) -> str:
    """Write a duration as a clock shows it: '1:02:03', or '2:03' below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
