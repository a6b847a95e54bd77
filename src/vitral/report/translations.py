"""The sentences of the page in English and in other languages.

    translations("ko").say("Accuracy")                              # '정확도'
    translations("ko").say("%(count)s images", {"count": 12})

An English sentence is its own key; `templates/translations_ko.toml` has the Korean of each. A
percent sign that is meant is written twice, in the sentence and in its translation.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

from vitral.errors import UsageError
from vitral.report.style import TEMPLATES


@dataclass(frozen=True, slots=True)
class Translations:
    """The sentences of one language.

    Attributes:
        lang: its code, for <html lang>.
        table: the sentence for each English one; empty for English.
    """

    lang: str
    table: Mapping[str, str]

    def gettext(self, message: str) -> str:
        """Find the sentence, with its placeholders; the English one where there is no other."""
        return self.table.get(message, message)

    def ngettext(self, one: str, many: str, count: int) -> str:
        """Find the sentence for one thing or for many."""
        return self.gettext(one if count == 1 else many)

    def say(self, message: str, values: Mapping[str, object] | None = None) -> str:
        """Find the sentence and put `values` in their places."""
        return self.gettext(message) % (values or {})


def translations(lang: str) -> Translations:
    """Read the sentences of "en" or "ko"; UsageError for another language."""
    match lang:
        case "en":
            return Translations(lang, {})
        case "ko":
            text = (TEMPLATES / "translations_ko.toml").read_text(encoding="utf-8")
            return Translations(lang, tomllib.loads(text))
        case _:
            raise UsageError(f"--lang is en or ko, not '{lang}'.")
