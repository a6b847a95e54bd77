"""Names with numbers in them: {i}, {s+1} (theirs counts from one), {u+1:02} (in two digits)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

NUMBER = re.compile(r"\{(\w)(\+1)?(:02)?\}")


@cache
def pattern(template: str) -> re.Pattern[str]:
    """Compile a template to an expression; each number is a group named by its letter."""
    text = ""
    end = 0
    for found in NUMBER.finditer(template):
        text += re.escape(template[end : found.start()]) + rf"(?P<{found[1]}>\d{{1,5}})"
        end = found.end()
    return re.compile(text + re.escape(template[end:]))


def numbers_in(template: str, name: str) -> dict[str, int] | None:
    """Read the numbers in a name, counted from 0 and by letter; None if it is no such name."""
    found = pattern(template).fullmatch(name)
    if found is None:
        return None
    ones = {part[1] for part in NUMBER.finditer(template) if part[2]}
    return {letter: int(digits) - (letter in ones) for letter, digits in found.groupdict().items()}


def filled(template: str, values: Mapping[str, int]) -> str:
    """Return the name that a template makes of numbers by letter."""

    def digits(found: re.Match[str]) -> str:
        number = values[found[1]] + bool(found[2])
        return f"{number:02}" if found[3] else str(number)

    return NUMBER.sub(digits, template)


def rewritten(name: str, pairs: Mapping[str, str]) -> str:
    """Replace the first beginning (ends in "." or "/") or whole name of `pairs` in a name."""
    for old, new in pairs.items():
        if old.endswith((".", "/")):
            if found := pattern(old).match(name):
                return filled(new, numbers_in(old, found[0]) or {}) + name[found.end() :]
        elif (values := numbers_in(old, name)) is not None:
            return filled(new, values)
    return name
