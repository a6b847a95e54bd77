"""vitral predict: the class of each image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitral.cli.app import USE, AsJson, ClassFile, Device, RunArgument, app, refuse_overwrite
from vitral.cli.class_file import named
from vitral.cli.printing import print_json, print_lines, print_note
from vitral.cli.tables import cannot_tell_foreign, doubts_of, truth
from vitral.errors import DataError

if TYPE_CHECKING:
    from vitral.classifier import Answer


@app.command(rich_help_panel=USE)
def predict(
    run: RunArgument,
    images: Annotated[list[Path], typer.Argument(help="Images or folders of images.")],
    top: Annotated[int, typer.Option(help="Classes to name per image.", min=1)] = 3,
    csv_: Annotated[
        Path | None, typer.Option("--csv", help="Write the answers to this file.")
    ] = None,
    classes: ClassFile = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Name the class of each image, or all its classes: those with a probability of 0.5 or more.

    An answer is unsure below the probability that training found to be worth believing, and an
    image is foreign where it looks like none that the model has learnt from.
    """
    from vitral.classifier import Answer, load
    from vitral.data.datasets import find_images

    classifier = load(run, device=device, announce=print_note)
    if classes is not None:
        classifier = named(classifier, classes)
    files = find_images(images)
    refuse_overwrite(files, csv_)
    if classifier.foreign is None and classifier.classes:
        print_note(cannot_tell_foreign(run))
    results: list[dict[str, Any]] = []
    for answer in classifier.predict_files(files, top=top):
        if isinstance(answer, Answer):
            results.append(answer.to_dict())
            line = _line(answer)
        else:
            path, error = answer
            entry = {"code": "unreadable", "message": str(error)}
            results.append({"path": str(path), "error": entry})
            line = f"{path}  cannot be read: {error}"
        if not as_json:
            print_lines([line])
    if as_json:
        print_json({"results": results})
    if csv_ is not None:
        _write_table(csv_, results, multi_label=classifier.task.multi_label)
    if all("error" in result for result in results):
        raise DataError(f"None of the {len(results)} files could be read as an image.")


def _line(answer: Answer) -> str:
    """Show an answer: its path, its classes if it may have several, and the best with scores."""
    top = "  ".join(f"{label} {score:.3f}" for label, score in answer.top)
    if answer.labels is not None:
        labels = ", ".join(answer.labels) or "none"
        return f"{answer.path}  {doubts_of(answer.to_dict())}{labels}:  {top}"
    return f"{answer.path}  {doubts_of(answer.to_dict())}{top}"


def _write_table(path: Path, results: list[dict[str, Any]], *, multi_label: bool) -> None:
    from vitral.evaluation import joined
    from vitral.storage import files

    columns = ["path", "labels", "label", "score", "unsure", "foreign", "foreign_score", "error"]
    if not multi_label:
        columns.remove("labels")
    rows = [columns]
    for result in results:
        row = result | {"error": result.get("error", {}).get("message", "")}
        row["labels"] = joined(result.get("labels", ()))
        row |= {name: truth(result.get(name)) for name in ("unsure", "foreign")}
        distance = result.get("foreign_score")
        row["foreign_score"] = "" if distance is None else f"{distance:.6g}"
        rows.append([row.get(column, "") for column in columns])
    files.write_csv(path, rows)
