"""The places of a run's images, which may move between its beginning and a resume.

recipe.json says where they were; places.json, where there is one, each other place that they were
read from since, with the step from which on.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vitral.data.contents import difference
from vitral.data.sources import Dataset
from vitral.errors import DataError
from vitral.storage import files
from vitral.training.recipe import Data

FILE = "places.json"


def last_place(out: Path, settings: Data) -> Data:
    """Return the settings of a run's images with the place that they were read from last."""
    places = _read(out)
    return replace(settings, source=places[-1]["source"]) if places else settings


def add_place(out: Path, settings: Data, data: Dataset, step: int) -> None:
    """Keep the place that a run's images are read from, if they were elsewhere so far."""
    if data.absolute_source == last_place(out, settings).source:
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    place = {"source": data.absolute_source, "from_step": step, "date": now}
    files.write_json(out / FILE, [*_read(out), place])


def refuse_other_images(out: Path, fingerprint: str, data: Dataset, source: str) -> None:
    """Raise DataError for images that are not those that the run began with, and say how not."""
    if data.fingerprint == fingerprint:
        return
    try:
        before = json.loads((out / "recipe.json").read_text(encoding="utf-8")).get("images") or {}
    except (OSError, ValueError, AttributeError):
        before = {}
    how = difference(before, data.contents)
    if data.absolute_source == source:
        told = f"The images in {source} changed since {out} began, so it cannot go on exactly"
        way = "Put the old files back"
    else:
        told = f"The images in {data.source} are not those that {out} began with"
        way = f"Name the place where those are: vitral train PLACE --resume {out}"
    raise DataError(f"{told}{f': {how}' if how else '.'} {way}, or start a new run.")


def _read(out: Path) -> list[dict[str, Any]]:
    """The places so far; none where the file is not there, or is not ours."""
    try:
        places = json.loads((out / FILE).read_text(encoding="utf-8"))
        return places if all(isinstance(place["source"], str) for place in places) else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
