"""The page of a run once more: its pictures are found again where the data still is.

rerender(Path("runs/flowers"), lang="ko")
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vitral.classifier import load
from vitral.errors import VitralError
from vitral.report.gallery import Example, examples
from vitral.report.page import write_report
from vitral.report.record import Record, read_record
from vitral.report.translations import translations


def rerender(
    run: Path,
    lang: str = "en",
    path: Path | None = None,
    *,
    device: str | None = None,
    announce: Callable[[str], None] = print,
) -> Path:
    """Write the page of a finished run anew, and return its path.

    `announce` is called when the images or the model cannot be opened; the page then goes without
    pictures. Raises what `write_report` raises.
    """
    translations(lang)  # an unknown language is refused before anything is read
    record = read_record(run)
    return write_report(run, _pictures(run, record, device, announce), lang, path)


def _pictures(
    run: Path, record: Record, device: str | None, announce: Callable[[str], None]
) -> list[Example]:
    made_by: Any = record.card.get("made_by")
    source = ((made_by or {}).get("data") or {}).get("source")
    if source is None or not record.predictions:
        announce("The run does not say which images it was scored on; the page has no pictures.")
        return []
    try:
        classifier = load(run, device=device, announce=announce)
        split = classifier.eval_set(source).split
        pictures = examples(
            split, record.predictions, classifier.model, classifier.card.images, kind=record.kind
        )
    except VitralError as error:
        announce(f"The page has no pictures: {error}")
        return []
    if not pictures:
        announce(f"None of the images of predictions.csv is in {source}; the page has no pictures.")
    return pictures
