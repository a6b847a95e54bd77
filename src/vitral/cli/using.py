"""The verbs that use a model: evaluate, predict."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from vitral import terminal
from vitral.cli.app import (
    AsJson,
    Data,
    Device,
    RunArgument,
    app,
    complain,
    out,
    print_json,
    progress,
    spare,
)
from vitral.errors import UsageError

if TYPE_CHECKING:
    from vitral.classifier import Classifier
    from vitral.evaluation import Comparison, Evaluation, SeveralEvaluation
    from vitral.images.scored import Labelled
    from vitral.images.sources import Split

    Score = Evaluation | SeveralEvaluation


@app.command()
def evaluate(
    run: RunArgument,
    data: Data,
    compare: Annotated[
        str | None, typer.Option(help="Another model: is one better on these images?")
    ] = None,
    probe: Annotated[
        str | None, typer.Option(help="Score the frozen features instead: fewshot, knn or linear.")
    ] = None,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Leave out classes the model does not know.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Write a page of it, F.html.")] = None,
    lang: Annotated[str, typer.Option(help="Language of that page: en or ko.")] = "en",
    device: Device = None,
    as_json: AsJson = False,
    csv: Annotated[Path | None, typer.Option(help="Write one line per image here.")] = None,
) -> None:
    """Score a model on labelled images: each number with its interval, classes, confusions.

    With its calibration: how far the probabilities are off, and which answers are sure. Of a
    model of several labels: the mean average precision, with its interval, and each class.
    """
    from vitral.classifier import load

    if probe is not None:
        if compare or allow_unknown or report or csv:
            raise UsageError(
                "--probe learns the classes anew from the features and goes with --json and "
                "--device alone; leave --compare, --allow-unknown, --report and --csv out."
            )
        _probe(load(run, device=device, announce=complain), data, probe, as_json=as_json)
        return
    if report is not None:
        from vitral.report.words import words

        words(lang)  # an unknown language is told before the work
    classifier = load(run, device=device, announce=complain)
    found = classifier.find(data, allow_unknown=allow_unknown)
    unknown, whole, other = dict(found.unknown), len(found.split), None
    if compare is not None:
        other = load(compare, device=device, announce=complain)
        found, theirs = _met(classifier, found, other, data, allow_unknown=allow_unknown)
        unknown |= theirs.unknown
    split = found.split
    for problem in split.problems[:5]:
        complain(f"{problem.path}: {problem.reason}")
    evaluation = classifier.evaluate(found)
    compared = None if other is None else _compared(evaluation, other.evaluate(theirs))
    _write(classifier, evaluation, split, csv, report, lang)
    if as_json:
        more = {} if compared is None else {"compare": {"with": compare} | compared.to_dict()}
        print_json({**evaluation.to_dict(), "split": split.name, "unknown": unknown, **more})
        return
    of = f" of {whole:,}, which both may be asked about" * (len(split) < whole)
    learnt = ", those it learnt from included if they are there" * (split.name == "all")
    _print(evaluation, f"{data}: {len(split):,} {split.name} images{of}{learnt}", unknown)
    if compared is not None:
        for line in terminal.comparison_lines(compared, run, str(compare)):
            out.print(line, markup=False)


@app.command()
def predict(
    run: RunArgument,
    images: Annotated[list[Path], typer.Argument(help="Images or folders of images.")],
    top: Annotated[int, typer.Option(help="Classes to name per image.", min=1)] = 3,
    csv: Annotated[Path | None, typer.Option(help="Write the answers to this file.")] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Name the class of each image, or all its classes: those with a probability of 0.5 or more.

    An answer is unsure below the probability that training found to be worth believing.
    """
    from vitral.classifier import Answer, load
    from vitral.errors import DataError
    from vitral.images.datasets import find_images

    classifier, files = load(run, device=device, announce=complain), find_images(images)
    spare(csv, files)
    results, unreadable = [], 0
    for result in classifier.predict_files(files, top=top):
        if isinstance(result, Answer):
            results.append(result.to_dict())
            line = "  ".join(f"{label} {score:.3f}" for label, score in result.top)
            named = "unsure:  " * result.unsure
            if result.labels is not None:
                named = f"{', '.join(result.labels) or 'none'}:  "
            shown = f"{result.path}  {named}{line}"
        else:
            path, error = result
            unreadable += 1
            entry = {"code": "unreadable", "message": str(error)}
            results.append({"path": str(path), "error": entry})
            shown = f"{path}  cannot be read: {error}"
        if not as_json:
            out.print(shown, markup=False)
    if as_json:
        print_json({"results": results})
    if csv is not None:
        _write_answers(csv, results, several=classifier.several)
    if unreadable == len(results):
        raise DataError(f"None of the {unreadable} files could be read as an image.")


def _probe(classifier: Classifier, data: str, kind: str, *, as_json: bool) -> None:
    from vitral import features
    from vitral.evaluation.probes import ProbeKind, probe_lines

    if kind not in get_args(ProbeKind):
        raise UsageError(f"--probe is one of {', '.join(get_args(ProbeKind))}, not '{kind}'.")
    with progress("embedding") as tick:
        result = features.probe(classifier, data, cast(ProbeKind, kind), tick=tick)
    if as_json:
        print_json(result.to_dict())
        return
    for line in probe_lines(result):
        out.print(line, markup=False)


def _met(
    first: Classifier, found: Labelled, second: Classifier, data: str, *, allow_unknown: bool
) -> tuple[Labelled, Labelled]:
    from vitral.images.scored import in_common

    if first.several or second.several:
        raise UsageError("--compare is for models that name one class, and one names several.")
    return in_common(found, second.find(data, allow_unknown=allow_unknown))


def _compared(first: Score, second: Score) -> Comparison:
    from vitral.evaluation import Evaluation, compare

    assert isinstance(first, Evaluation) and isinstance(second, Evaluation)
    return compare(first, second)


def _write(
    classifier: Classifier,
    evaluation: Score,
    split: Split,
    csv: Path | None,
    report: Path | None,
    lang: str,
) -> None:
    """The files that were asked for."""
    from vitral.evaluation import write_predictions

    if csv is not None:
        write_predictions(csv, evaluation)
    if report is not None:
        from vitral.report import write_evaluation_report

        write_evaluation_report(report, evaluation, split, classifier, lang)
        complain(f"written: {report}", plain=True)


def _print(evaluation: Score, data: str, unknown: dict[str, int]) -> None:
    out.print(f"data       {data}", markup=False)
    for line in terminal.evaluation_lines(evaluation, unknown):
        out.print(line, markup=False)


def _write_answers(path: Path, results: list[dict[str, Any]], *, several: bool) -> None:
    import csv

    from vitral.evaluation import joined
    from vitral.weights import storage

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["path", *(["labels"] if several else []), "label", "score", "unsure", "error"])
    for result in results:
        error = result.get("error", {}).get("message", "")
        labels = [joined(result.get("labels", ()))] if several else []
        unsure = {True: "true", False: "false", None: ""}[result.get("unsure")]
        answer = [*labels, result.get("label", ""), result.get("score", ""), unsure]
        writer.writerow([result["path"], *answer, error])
    storage.write_text(path, text.getvalue())
