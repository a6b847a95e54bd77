"""Names with numbers in them: {i}, {s+1} (theirs counts from one), {u+1:02} (in two digits)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

NUMBER = re.compile(r"\{(\w)(\+1)?(:02)?\}")


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of names to an expression; each number is a group named by its letter."""
    text = ""
    end = 0
    for match in NUMBER.finditer(pattern):
        text += re.escape(pattern[end : match.start()]) + rf"(?P<{match[1]}>\d{{1,5}})"
        end = match.end()
    return re.compile(text + re.escape(pattern[end:]))


def numbers_in(pattern: str, name: str) -> dict[str, int] | None:
    """Read the numbers in a name, counted from 0 and by letter; None if it is no such name."""
    match = compiled(pattern).fullmatch(name)
    if match is None:
        return None
    ones = {part[1] for part in NUMBER.finditer(pattern) if part[2]}
    return {letter: int(digits) - (letter in ones) for letter, digits in match.groupdict().items()}


def filled(pattern: str, values: Mapping[str, int]) -> str:
    """Return the name that a pattern makes of numbers by letter."""

    def digits(match: re.Match[str]) -> str:
        number = values[match[1]] + bool(match[2])
        return f"{number:02}" if match[3] else str(number)

    return NUMBER.sub(digits, pattern)


def rewritten(name: str, pairs: Mapping[str, str]) -> str:
    """Replace the first beginning (ends in "." or "/") or whole name of `pairs` in a name."""
    for old, new in pairs.items():
        if old.endswith((".", "/")):
            if match := compiled(old).match(name):
                return filled(new, numbers_in(old, match[0]) or {}) + name[match.end() :]
        elif (values := numbers_in(old, name)) is not None:
            return filled(new, values)
    return name
