"""vitral predict: the class of each image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitral.cli import in_parts
from vitral.cli.app import (
    USE,
    AsJson,
    ClassFile,
    Device,
    Engine,
    Merge,
    Precision,
    RunArgument,
    Sets,
    SetsBy,
    app,
    refuse_overwrite,
)
from vitral.cli.class_file import named
from vitral.cli.in_parts import Devices
from vitral.cli.printing import print_json, print_lines, print_note, progress
from vitral.cli.tables import cannot_tell_foreign, doubts_of, truth
from vitral.errors import DataError, UsageError

if TYPE_CHECKING:
    from vitral.answers import Answer, AnswerRequest
    from vitral.classifier import Classifier
    from vitral.evaluation.neighbours import Similar
    from vitral.parts import Job


@app.command(rich_help_panel=USE)
def predict(
    run: RunArgument,
    images: Annotated[
        list[str], typer.Argument(help="Images, folders of images, or one source of tar shards.")
    ],
    top: Annotated[int, typer.Option(help="Classes to name per image.", min=1)] = 3,
    sets: Sets = None,
    sets_by: SetsBy = "adaptive",
    similar: Annotated[int, typer.Option(help="Training images most alike to name.", min=0)] = 0,
    similar_to: Annotated[
        str | None, typer.Option(help="Images to compare with instead of those of the training.")
    ] = None,
    csv_: Annotated[
        Path | None, typer.Option("--csv", help="Write the answers to this file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Of shards: folder of parquet files.")] = None,
    devices: Devices = None,
    classes: ClassFile = None,
    device: Device = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    merge: Merge = "off",
    as_json: AsJson = False,
) -> None:
    """Name the class of each image, or all its classes: those with a probability of 0.5 or more.

    An answer is unsure below the probability that training found to be worth believing, and an
    image is foreign where it looks like none that the model has learnt from. Of classes that have
    groups (train --tree) the group is named where the class is unsure. Of tar shards --out gets a
    parquet file for each, as `embed` writes them.
    """
    from vitral.data.datasets import find_images
    from vitral.evaluation.answer_sets import check_method

    if similar_to is not None and not similar:
        raise UsageError("--similar-to says what to compare with; say how many, too: --similar 3.")
    method = check_method(sets_by)
    how = in_parts.How(device, engine, precision, merge)
    of_shards = in_parts.Asked(run, images, out, devices, how)
    if in_parts.wanted(of_shards, csv_, sets, similar, classes):
        in_parts.write_and_tell(of_shards, lambda clf: _job(clf, top), as_json=as_json)
        return
    classifier = how.load(run)
    classifier = classifier if classes is None else named(classifier, classes)
    files = find_images([Path(image) for image in images])
    refuse_overwrite(files, csv_)
    if classifier.merge:
        print_note("merge     whether a picture is foreign is not said of merged tokens")
    elif classifier.foreign is None and classifier.classes:
        print_note(cannot_tell_foreign(run))
    rule = None if sets is None else classifier.set_rule(sets, method)
    if rule is not None:
        print_note(f"sets: {rule.guarantee()}")
    index = None
    if similar:
        with progress("comparing") as tick:
            index = classifier.neighbours(similar_to, tick=tick, announce=print_note)
    request = classifier.request(
        top=top, sets=sets, sets_by=method, similar=similar, similar_to=index
    )
    results = _answered(classifier, files, request, show=not as_json)
    if as_json:
        print_json({"results": results} | ({} if rule is None else {"sets": rule.to_dict()}))
    if csv_ is not None:
        _write_table(csv_, results, _left_out(classifier, request))
    if all("error" in result for result in results):
        raise DataError(f"None of the {len(results)} files could be read as an image.")


def _job(classifier: Classifier, top: int) -> Job:
    """What is asked of each image of shards."""
    from vitral import parts
    from vitral.answers import AnswerRequest

    classifier.refuse_without_head()
    return parts.answers(AnswerRequest(top=top), several=classifier.task.multi_label)


def _answered(
    classifier: Classifier, files: list[Path], request: AnswerRequest, *, show: bool
) -> list[dict[str, Any]]:
    """Answer for each file, or say why it cannot be read, and show each at once."""
    from vitral.answers import Answer

    results: list[dict[str, Any]] = []
    named: list[Similar] = []
    for answer in classifier.predict_files(files, request=request):
        if isinstance(answer, Answer):
            results.append(answer.to_dict())
            named += answer.similar or ()
            lines = _lines(answer)
        else:
            path, error = answer
            entry = {"code": "unreadable", "message": str(error)}
            results.append({"path": str(path), "error": entry})
            lines = [f"{path}  cannot be read: {error}"]
        if show:
            print_lines(lines)
    if named:
        from vitral.evaluation.neighbours import missing

        if gone := missing(named):
            print_note(f"{gone:,} of the similar images are not where they were any more.")
    return results


def _lines(answer: Answer) -> list[str]:
    """Show an answer, and under it the images most alike."""
    similar = answer.similar or ()
    return [_line(answer), *(f"    {s.cosine:.3f}  {s.label}  {s.path}" for s in similar)]


def _line(answer: Answer) -> str:
    """Show an answer: its path, its classes if it may have several, and the best with scores."""
    top = "  ".join(f"{label} {score:.3f}" for label, score in answer.top)
    if answer.labels is not None:
        labels = ", ".join(answer.labels) or "none"
        return f"{answer.path}  {doubts_of(answer.to_dict())}{labels}:  {top}"
    group = "" if answer.group is None else f"{answer.group} {answer.group_score:.3f}:  "
    inside = "" if answer.set is None else f"{{{', '.join(answer.set)}}}  "
    return f"{answer.path}  {doubts_of(answer.to_dict())}{group}{inside}{top}"


def _left_out(classifier: Classifier, request: AnswerRequest) -> set[str]:
    """The columns that answers of this kind have nothing for."""
    left_out = set() if classifier.task.multi_label else {"labels"}
    left_out |= set() if classifier.card.tree else {"group", "group_score"}
    left_out |= {"set"} if request.rule is None else set()
    left_out |= set() if request.similar else {"similar", "cosine"}
    return left_out


def _write_table(path: Path, results: list[dict[str, Any]], left_out: set[str]) -> None:
    from vitral.evaluation import joined
    from vitral.storage import files

    columns = ["path", "labels", "label", "score", "unsure", "foreign", "foreign_score", "error"]
    columns[-1:-1] = ["group", "group_score", "set", "similar", "cosine"]
    columns = [column for column in columns if column not in left_out]
    rows = [columns]
    for result in results:
        row = result | {"error": result.get("error", {}).get("message", "")}
        row |= {name: joined(result.get(name, ())) for name in ("labels", "set")}
        similar = result.get("similar", ())
        row["similar"] = joined(each["path"] for each in similar)
        row["cosine"] = joined(str(each["cosine"]) for each in similar)
        row |= {name: truth(result.get(name)) for name in ("unsure", "foreign")}
        distance = result.get("foreign_score")
        row["foreign_score"] = "" if distance is None else f"{distance:.6g}"
        rows.append([row.get(column, "") for column in columns])
    files.write_csv(path, rows)
