"""The page of a run once more: its pictures are found again where the data still is.

rerender(Path("runs/flowers"), lang="ko")
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vitral.errors import VitralError
from vitral.loading import load
from vitral.report.gallery import Example, count_wanted, examples
from vitral.report.page import write_record
from vitral.report.record import Record, read_record
from vitral.report.translations import translations


def rerender(
    run: Path,
    lang: str = "en",
    path: Path | None = None,
    *,
    data: str | None = None,
    device: str | None = None,
    announce: Callable[[str], None] = print,
) -> Path:
    """Write the page of a finished run anew, and return its path.

    `data` names the images where they lie elsewhere now. `announce` is called when images or the
    model cannot be opened; the page then goes without their pictures. Raises DataError, and leaves
    the page that is there, where that one has more of them; and what `write_report` raises.
    """
    language = translations(lang)  # an unknown language is refused before anything is read
    record = read_record(run)
    pictures, missing = _pictures(run, record, data, device, announce)
    path = path or Path(run) / "report.html"
    write_record(path, record, pictures, language, missing=missing)
    if missing:
        announce(f"The page has {'fewer' if pictures else 'no'} pictures: {missing}")
    return path


def _pictures(
    run: Path,
    record: Record,
    data: str | None,
    device: str | None,
    announce: Callable[[str], None],
) -> tuple[list[Example], str]:
    """The pictures that can be had, and why others cannot, in a sentence."""
    made_by: Any = record.card.get("made_by")
    source = data or ((made_by or {}).get("data") or {}).get("source")
    if source is None or not record.predictions:
        return [], "the run does not say which images it was scored on."
    try:
        classifier = load(run, device=device, announce=announce)
        split = classifier.eval_set(source).split
        pictures = examples(
            split, record.predictions, classifier.model, classifier.card.images, kind=record.kind
        )
    except VitralError as error:
        return [], str(error)
    wanted = count_wanted(record.predictions, kind=record.kind)
    if not pictures:
        return [], f"none of the images of predictions.csv is in {source}."
    if len(pictures) < wanted:
        return pictures, f"{wanted - len(pictures)} of {wanted} are not in {source} any more."
    return pictures, ""
