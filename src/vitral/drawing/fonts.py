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
def installed_faces() -> dict[str, str]:
    """List the faces of ours that this machine has, as family -> font file; never empty."""
    from matplotlib import font_manager  # noqa: PLC0415  matplotlib takes 0.3 s to import

    files = {font.name: font.fname for font in reversed(font_manager.fontManager.ttflist)}
    return {face: files[face] for face in _FACES if face in files}


def can_draw(text: str) -> bool:
    """Tell whether the installed faces have a glyph for every character of a text."""
    needed = {ord(letter) for letter in text if not letter.isspace()}
    return needed <= set().union(*(_characters(file) for file in installed_faces().values()))


def one_line(text: str, longest: int = 32) -> str:
    """Make one printable line of at most `longest` characters: no control code reaches an SVG."""
    line = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    return line if len(line) <= longest else line[: longest - 1] + "…"


def class_label(classes: Sequence[str], index: int, kind: str) -> str:
    """Name a class as a figure can write it: in a PNG by its number where no font has the name."""
    name = one_line(classes[index])
    return name if kind == "svg" or can_draw(name) else f"class {index}"


@lru_cache
def _characters(file: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font  # noqa: PLC0415  as above

    return frozenset(FT2Font(file).get_charmap())
