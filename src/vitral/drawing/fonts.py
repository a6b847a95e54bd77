"""Text in figures: which installed fonts can write it, so that 한글 never becomes squares.

A PNG can only hold glyphs of fonts found on this machine: a name that they cannot write is
replaced by its class number. An SVG keeps text as text, so every name stands in it and the
reader's own fonts draw it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from vitral.drawing.palette import KOREAN_FACES

_FACES = ("DejaVu Sans", *KOREAN_FACES, "Noto Sans CJK JP", "Noto Sans CJK SC")


@lru_cache(maxsize=1)
def installed() -> dict[str, str]:
    """The faces of our list that this machine has, as family -> font file; never empty."""
    from matplotlib import font_manager  # noqa: PLC0415  matplotlib takes 0.3 s to import

    files = {font.name: font.fname for font in reversed(font_manager.fontManager.ttflist)}
    return {face: files[face] for face in _FACES if face in files}


def drawable(text: str) -> bool:
    """Whether the installed faces have a glyph for every character of the text."""
    letters = {ord(letter) for letter in text if not letter.isspace()}
    return letters <= set().union(*(_letters(file) for file in installed().values()))


def clean(text: str, longest: int = 32) -> str:
    """One printable line of at most `longest` characters: no control code reaches an SVG."""
    line = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    return line if len(line) <= longest else line[: longest - 1] + "…"


def shown(classes: Sequence[str], index: int, kind: str) -> str:
    """The name of a class as a figure can write it: in a PNG its number where no font has it."""
    name = clean(classes[index])
    return name if kind == "svg" or drawable(name) else f"class {index}"


@lru_cache
def _letters(file: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font  # noqa: PLC0415  as above

    return frozenset(FT2Font(file).get_charmap())
