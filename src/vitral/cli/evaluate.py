"""The verbs that use a model: evaluate, predict."""

from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from vitral.cli import tables
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
from vitral.wording import first_lines

if TYPE_CHECKING:
    from vitral.classifier import Classifier
    from vitral.data.scored import Labelled
    from vitral.data.sources import Problem, Split
    from vitral.evaluation import Comparison, Evaluation

PROBES_ALONE = (
    "--probe learns the classes anew from the features and goes with --json and --device alone; "
    "leave --compare, --allow-unknown, --report and --csv out."
)


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
    lang: Annotated[str | None, typer.Option(help="Language of that page: en or ko.")] = None,
    device: Device = None,
    as_json: AsJson = False,
    csv: Annotated[Path | None, typer.Option(help="Write one line per image here.")] = None,
) -> None:
    """Score a model on labelled images: intervals, each class, calibration, confusions.

    Of a multi-label model: the mean average precision, with its interval, and each class.
    """
    from vitral.classifier import load
    from vitral.data.sources import LEFT_OUT
    from vitral.evaluation import compare as compared_with
    from vitral.evaluation import write_predictions

    _refuse_places(csv, report, lang, data)
    if probe is not None:
        if compare or allow_unknown or report or csv:
            raise UsageError(PROBES_ALONE)
        _probe(load(run, device=device, announce=complain), data, probe, as_json=as_json)
        return
    classifier = load(run, device=device, announce=complain)
    found = classifier.find(data, allow_unknown=allow_unknown)
    unknown, whole, other = dict(found.unknown), len(found.split), None
    if compare is not None:
        other = load(compare, device=device, announce=complain)
        found, theirs = _met(classifier, found, other, data, allow_unknown=allow_unknown)
        unknown |= theirs.unknown
    split = found.split
    with progress("scoring") as tick:
        evaluation, failed = classifier.scored(found, tick=tick)
    _tell(*split.problems, *failed)
    unreadable = [problem for problem in (*split.problems, *failed) if problem.code in LEFT_OUT]
    lost = {"unknown": unknown, "unreadable": unreadable}
    met = None
    if other is not None:
        met = str(compare), compared_with(evaluation, other.evaluate(theirs))
    if csv is not None:
        write_predictions(csv, evaluation)
    if report is not None:
        page = (report, f"{run} · {data}", lang or "en")
        _write_page(classifier, evaluation, split, page, lost | {"compared": met})
    if as_json:
        _print_values(evaluation, split.name, lost, met)
        return
    of = f" of {whole:,}, which both may be asked about" * (len(split) < whole)
    _print(evaluation, split.name, (data, of), unknown, both=met is not None)
    for line in () if met is None else met[1].lines(run, met[0]):
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
    from vitral.data.datasets import find_images
    from vitral.errors import DataError

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
        _write_answers(csv, results, multi_label=classifier.task.multi_label)
    if unreadable == len(results):
        raise DataError(f"None of the {unreadable} files could be read as an image.")


def _refuse_places(csv: Path | None, report: Path | None, lang: str | None, data: str) -> None:
    """Refuse another suffix, to write over what the data is made of, and an unknown language."""
    for target, suffix in ((csv, ".csv"), (report, ".html")):
        if target is not None and target.suffix != suffix:
            raise UsageError(f"{target} does not end in {suffix}; name a file that does.")
        of_data = target is not None and target.resolve().is_relative_to(Path(data).resolve())
        if of_data and target is not None and target.exists():
            raise UsageError(f"{target} is part of {data}; write somewhere else.")
    if lang is not None and report is None:
        raise UsageError("--lang is the language of the page; give --report F.html, too.")
    if lang is not None:
        from vitral.report.translations import translations

        translations(lang)  # an unknown one is told before the work


def _tell(*problems: Problem) -> None:
    """The first of the images that were left out."""
    for line in first_lines(f"{problem.path}: {problem.reason}" for problem in problems):
        complain(line)


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
    from vitral.data.scored import in_common

    if first.task.multi_label or second.task.multi_label:
        raise UsageError("--compare is for models that name one class, and one names several.")
    theirs = second.find(data, allow_unknown=allow_unknown)
    if theirs.own != found.own:
        complain(
            f"The {'first' if theirs.own else 'second'} model may have learnt from these images: "
            f"it was not trained on {data} as it is now."
        )
    return in_common(found, theirs)


def _write_page(
    classifier: Classifier,
    evaluation: Evaluation,
    split: Split,
    page: tuple[Path, str, str],
    beside: dict[str, Any],
) -> None:
    """The page of one evaluation: (file, heading, language), and what else there is to say."""
    from vitral.report import write_evaluation_report

    path, name, lang = page
    command = shlex.join(["vitral", *sys.argv[1:]])
    write_evaluation_report(
        path, evaluation, split, classifier, lang, heading=name, command=command, **beside
    )
    complain(f"written: {path}", plain=True)


def _print(
    evaluation: Evaluation,
    split: str,
    data: tuple[str, str],
    unknown: dict[str, int],
    *,
    both: bool,
) -> None:
    learnt = ", those it learnt from included if they are there" * (split == "all")
    counted = f"{evaluation.samples:,} {split} images{data[1]}{learnt}"
    out.print(f"data       {data[0]}: {counted}", markup=False)
    for line in tables.evaluation_lines(evaluation, unknown, both=both):
        out.print(line, markup=False)


def _print_values(
    evaluation: Evaluation, split: str, lost: dict[str, Any], met: tuple[str, Comparison] | None
) -> None:
    told = lost | {"unreadable": [problem.path for problem in lost["unreadable"]]}
    more = {} if met is None else {"compare": {"with": met[0]} | met[1].to_dict()}
    print_json({**evaluation.to_dict(), "split": split, **told, **more})


def _write_answers(path: Path, results: list[dict[str, Any]], *, multi_label: bool) -> None:
    import csv

    from vitral.evaluation import joined
    from vitral.storage import files

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(
        ["path", *(["labels"] if multi_label else []), "label", "score", "unsure", "error"]
    )
    for result in results:
        error = result.get("error", {}).get("message", "")
        labels = [joined(result.get("labels", ()))] if multi_label else []
        unsure = {True: "true", False: "false", None: ""}[result.get("unsure")]
        answer = [*labels, result.get("label", ""), result.get("score", ""), unsure]
        writer.writerow([result["path"], *answer, error])
    files.write_text(path, text.getvalue())
