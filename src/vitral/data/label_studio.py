"""Label Studio's JSON for image classification: tasks to import there, and its exports.

    tasks = write(...)       [{"data": {"image": ..., "path": ...}, "predictions": [...]}]
    read("export.json")      its export as JSON (tasks with annotations) or as JSON-MIN

The formats are those of labelstud.io/guide/tasks and labelstud.io/guide/export (choices). The
picture's path of the data travels as `path`, since Label Studio calls images by an address.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import quoteattr

from vitral.errors import DataError

FROM = "label"  # the name of the choices in the labelling configuration
TO = "image"
_LOCAL = "/data/local-files/?d="


def task(path: str, place: str, suggested: Sequence[str], score: float | None) -> dict[str, Any]:
    """Makes the task of one picture, with the suggested classes as a prediction.

    Args:
        path: the picture as the data calls it.
        place: where it is, for Label Studio's local storage.
        suggested: classes; none makes no prediction.
        score: of the prediction.
    """
    values: dict[str, Any] = {"data": {"image": _LOCAL + place.lstrip("/"), "path": path}}
    if suggested:
        choices = {
            "from_name": FROM,
            "to_name": TO,
            "type": "choices",
            "value": {"choices": list(suggested)},
        }
        prediction: dict[str, Any] = {"model_version": "vitral", "result": [choices]}
        if score is not None:
            prediction["score"] = score
        values["predictions"] = [prediction]
    return values


def configuration(classes: Iterable[str], *, several: bool) -> str:
    """Writes the labelling configuration to paste into a project."""
    how = "multiple" if several else "single"
    rows = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in [*classes, "remove"])
    return (
        f'<View>\n  <Image name="{TO}" value="$image"/>\n'
        f'  <Choices name="{FROM}" toName="{TO}" choice="{how}">\n{rows}\n  </Choices>\n</View>\n'
    )


def read(path: Path) -> list[tuple[str, str, str]]:
    """Reads an export: (the task in words, the picture's path, its choices with | between).

    Tasks without an annotation have no choices. Raises DataError for JSON of another kind.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as Label Studio's JSON ({error}).") from None
    if not isinstance(values, list) or not all(isinstance(one, Mapping) for one in values):
        raise DataError(
            f"{path} is no export of Label Studio: it is a list of tasks (formats JSON and "
            f"JSON-MIN)."
        )
    rows = []
    for number, one in enumerate(values, 1):
        where = f"task {one.get('id', number)}"
        data = one.get("data", one)
        place = data.get("path") or _path_of(data.get(TO)) if isinstance(data, Mapping) else None
        if not isinstance(place, str) or not place:
            raise DataError(f"{path} {where} names no picture: it has no data.path or data.image.")
        choices = _choices(one, path, where)
        rows.append((where, place, "|".join(choices)))
    return rows


def _path_of(address: Any) -> str | None:
    """The path in an address of Label Studio's, of a local file or an upload."""
    if not isinstance(address, str):
        return None
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    return unquote(local[0] if local else parts.path)


def _choices(task: Mapping[str, Any], path: Path, where: str) -> list[str]:
    """The choices of the last annotation that was not cancelled."""
    if "data" not in task:  # JSON-MIN: a text, or {"choices": [...]} where there are several
        value = task.get(FROM, task.get("choice", ""))
        value = value.get("choices", []) if isinstance(value, Mapping) else value
        return [value] if isinstance(value, str) else [str(name) for name in value]
    annotations = [
        one for one in task.get("annotations", ()) if not one.get("was_cancelled", False)
    ]
    if not annotations:
        return []
    try:
        return [
            str(name)
            for result in annotations[-1]["result"]
            if result.get("type") == "choices"
            for name in result["value"]["choices"]
        ]
    except (KeyError, TypeError, AttributeError):
        raise DataError(f"{path} {where} has an annotation that is not of choices.") from None
