"""The words of the page in English and in other languages.

    words("ko").say("Accuracy")                                     # '정확도'
    words("ko").say("%(count)s images", {"count": 12})

An English sentence is its own key; `templates/words_ko.toml` has the Korean of each. A percent sign
that is meant is written twice, in the sentence and in its translation.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

from vitral.errors import UsageError
from vitral.report.style import TEMPLATES


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one language: its code (for <html lang>) and the sentence for each English."""

    lang: str
    table: Mapping[str, str]

    def sentence(self, message: str) -> str:
        """The sentence with its placeholders; the English one where there is no other."""
        return self.table.get(message, message)

    def either(self, one: str, many: str, count: int) -> str:
        """`sentence` for one thing or for many."""
        return self.sentence(one if count == 1 else many)

    def say(self, message: str, values: Mapping[str, object] | None = None) -> str:
        """The sentence with `values` in their places."""
        return self.sentence(message) % (values or {})


def words(lang: str) -> Words:
    """The words of "en" or "ko"; UsageError for another language."""
    match lang:
        case "en":
            return Words(lang, {})
        case "ko":
            text = (TEMPLATES / "words_ko.toml").read_text(encoding="utf-8")
            return Words(lang, tomllib.loads(text))
        case _:
            raise UsageError(f"--lang is en or ko, not '{lang}'.")
