"""vitral evaluate: how good a model is, or which of two is better."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from vitral.cli import in_parts
from vitral.cli.app import (
    UNDERSTAND,
    AsJson,
    ClassFile,
    Data,
    Device,
    Engine,
    LabelFile,
    Merge,
    Precision,
    RunArgument,
    Sets,
    SetsBy,
    app,
    refuse_part_of,
)
from vitral.cli.class_file import named
from vitral.cli.in_parts import Devices
from vitral.cli.printing import print_json, print_lines, print_note, print_skipped, progress
from vitral.cli.tables import evaluation_lines
from vitral.errors import UsageError

if TYPE_CHECKING:
    from vitral.classifier import Classifier
    from vitral.data.datasets import EvalSet
    from vitral.data.decisions import Decision
    from vitral.data.sources import Problem, Split
    from vitral.evaluation import Comparison, Evaluation
    from vitral.evaluation.answer_sets import SetRule
    from vitral.evaluation.foreign_score import ForeignScore
    from vitral.parts import Job

PROBES_ALONE = (
    "--probe learns the classes anew from the features and goes with --json and --device alone; "
    "leave --compare, --foreign, --allow-unknown, --sets, --report and --csv out."
)
Compare = Annotated[str | None, typer.Option(help="Another model: is one better on these images?")]
Probe = Annotated[
    str | None, typer.Option(help="Score the frozen features instead: fewshot, knn or linear.")
]
Foreign = Annotated[
    str | None, typer.Option(help="Images of something else: are they told from its own?")
]
Unlabelled = Annotated[
    bool, typer.Option("--unlabelled", help="No labels: are the images such as it was fitted on?")
]
UNLABELLED_ALONE = (
    "--unlabelled compares images without labels with those held out for the model, and goes with "
    "--json and --device alone; leave the other options out."
)
AllowUnknown = Annotated[
    bool, typer.Option("--allow-unknown", help="Leave out classes the model does not know.")
]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Result:
    """An evaluation and what belongs to it.

    Attributes:
        evaluation: of the images of `split` that could be read.
        split: those that were asked for, or those of them that both models may be asked about.
        whole: how many were asked for.
        unknown: how many images were left out, by their class; unreadable: files that were.
        decisions: what was chosen to match labels and classes.
        compared: another model's name, and what a comparison gave.
        foreign: the name of images of something else, and how well they are told.
    """

    evaluation: Evaluation
    split: Split
    whole: int
    unknown: dict[str, int]
    decisions: tuple[Decision, ...]
    unreadable: list[Problem]
    compared: tuple[str, Comparison] | None
    foreign: tuple[str, ForeignScore] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """The images that were asked for.

    Attributes:
        data: the source.
        allow_unknown: whether classes that a model does not know are left out.
        class_file, label_file: of class names and of corrections; "" for none.
        rule: of answer sets to be counted; None for none.
    """

    data: str
    allow_unknown: bool
    class_file: str
    label_file: str
    rule: SetRule | None

    def eval_set(self, classifier: Classifier) -> EvalSet:
        """Opens them with the labels as a model knows them."""
        return classifier.eval_set(
            self.data,
            allow_unknown=self.allow_unknown,
            class_file=self.class_file,
            label_file=self.label_file,
        )


@app.command(rich_help_panel=UNDERSTAND)
def evaluate(
    run: RunArgument,
    data: Data,
    compare: Compare = None,
    probe: Probe = None,
    foreign: Foreign = None,
    unlabelled: Unlabelled = False,
    allow_unknown: AllowUnknown = False,
    classes: ClassFile = None,
    labels: LabelFile = None,
    sets: Sets = None,
    sets_by: SetsBy = "adaptive",
    report: Annotated[Path | None, typer.Option(help="Write a page of it, F.html.")] = None,
    lang: Annotated[str | None, typer.Option(help="Language of that page: en or ko.")] = None,
    device: Device = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    merge: Merge = "off",
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Of shards: folder of parquet files.")] = None,
    devices: Devices = None,
    csv: Annotated[Path | None, typer.Option(help="Write one line per image here.")] = None,
) -> None:
    """Score a model on labelled images: intervals, each class, calibration, confusions.

    Of a multi-label model: the mean average precision, with its interval, and each class. With
    --unlabelled: whether images without labels are such as the model was fitted on. --merge is of
    the model, not of the one that --compare names: with the same one twice it tells what it costs.
    """
    _check_targets(csv, report, lang, data)
    others = (compare, foreign, report, csv, sets is not None)
    how = in_parts.How(device, engine, precision, merge)
    of_shards = in_parts.Asked(run, [data], out, devices, how)
    if in_parts.wanted(of_shards, *others, probe, unlabelled, allow_unknown, labels, classes):
        _evaluate_parts(of_shards, as_json=as_json)
        return
    _refuse_beside(probe, unlabelled, any(others) or allow_unknown, labels)
    from vitral.evaluation import write_predictions

    classifier = how.load(run)
    classifier = classifier if classes is None else named(classifier, classes)
    if probe is not None:
        _probe(classifier, data, probe, as_json=as_json)
        return
    if unlabelled:
        _drift(classifier, data, as_json=as_json)
        return
    rule = None if sets is None else _rule(classifier, data, sets, sets_by)
    other = None if compare is None else replace(how, merge="off").load(compare)
    asked = _Asked(
        data=data,
        allow_unknown=allow_unknown,
        class_file="" if classes is None else str(classes),
        label_file="" if labels is None else str(labels),
        rule=rule,
    )
    result = _evaluate(classifier, asked, other, compare or "")
    if foreign is not None:
        result = _with_foreign(result, classifier, foreign)
    if csv is not None:
        write_predictions(csv, result.evaluation)
    if report is not None:
        _write_page(report, result, classifier, lang or "en", f"{run} · {data}")
    if as_json:
        _print_json(result)
    else:
        _print(result, run, data)


def _rule(classifier: Classifier, data: str, sets: float, sets_by: str) -> SetRule:
    """Make the rule of answer sets, and say where these images cannot tell what they are worth."""
    from vitral.evaluation.answer_sets import check_method

    rule = classifier.set_rule(sets, check_method(sets_by))
    fitted = classifier.card.made_by.get("fitted")
    own = isinstance(fitted, dict) and fitted.get("data") == data
    if own and not rule.of_training:
        print_note(f"The sets were made by {data}: only other images tell what they are worth.")
    return rule


def _check_targets(csv: Path | None, report: Path | None, lang: str | None, data: str) -> None:
    """Raise UsageError for another suffix, a file of the data, and an unknown language."""
    for target, suffix in ((csv, ".csv"), (report, ".html")):
        if target is not None and target.suffix != suffix:
            raise UsageError(f"{target} does not end in {suffix}; name a file that does.")
        refuse_part_of(target, data)
    if lang is not None and report is None:
        raise UsageError("--lang is the language of the page; give --report F.html, too.")
    if lang is not None:
        from vitral.report.translations import translations

        translations(lang)  # an unknown one is refused before the work


def _probe(classifier: Classifier, data: str, kind: str, *, as_json: bool) -> None:
    """Score the frozen features with a head of their own."""
    from vitral import features
    from vitral.evaluation.probes import ProbeKind, probe_lines

    if kind not in get_args(ProbeKind):
        raise UsageError(f"--probe is one of {', '.join(get_args(ProbeKind))}, not '{kind}'.")
    with progress("embedding") as tick:
        result = features.probe(classifier, data, cast(ProbeKind, kind), tick=tick)
    if as_json:
        print_json(result.to_dict())
    else:
        print_lines(probe_lines(result))


def _drift(classifier: Classifier, pictures: str, *, as_json: bool) -> None:
    """Compare images without labels with those held out for the model."""
    from vitral.foreign_images import drift_of

    with progress("looking") as tick:
        drift, problems = drift_of(classifier, pictures, tick=tick)
    print_skipped(problems)
    if as_json:
        print_json(drift.to_dict() | {"unreadable": [problem.path for problem in problems]})
    else:
        print_lines(drift.lines())


def _with_foreign(result: _Result, classifier: Classifier, foreign: str) -> _Result:
    """Add how well images of something else are told from those that were scored."""
    from vitral.foreign_images import score_foreign_images

    with progress("foreign") as tick:
        score, problems = score_foreign_images(classifier, result.split, foreign, tick=tick)
    print_skipped(problems)
    return replace(result, foreign=(foreign, score))


def _evaluate(
    classifier: Classifier, asked: _Asked, other: Classifier | None, name: str
) -> _Result:
    """Score a model, and compare it with another one of this name on what both may be asked."""
    from vitral.data.decisions import to_lines
    from vitral.data.sources import LEFT_OUT
    from vitral.evaluation import compare

    images = asked.eval_set(classifier)
    for line in to_lines(images.decisions):
        print_note(line)
    whole = len(images.split)
    unknown = dict(images.unknown)
    if other is not None:
        images, others = _common(classifier, images, other, asked)
        unknown |= others.unknown
    with progress("scoring") as tick:
        evaluation, failed = classifier.scored(images, rule=asked.rule, tick=tick)
    problems = [*images.split.problems, *failed]
    print_skipped(problems)
    compared = None if other is None else (name, compare(evaluation, other.evaluate(others)))
    return _Result(
        evaluation=evaluation,
        split=images.split,
        whole=whole,
        unknown=unknown,
        decisions=images.decisions,
        unreadable=[problem for problem in problems if problem.code in LEFT_OUT],
        compared=compared,
    )


def _common(
    first: Classifier, images: EvalSet, second: Classifier, asked: _Asked
) -> tuple[EvalSet, EvalSet]:
    """Find the images that both models may be asked about, with the labels as each knows them."""
    from vitral.data.datasets import common

    if first.task.multi_label or second.task.multi_label:
        raise UsageError("--compare is for models that name one class, and one names several.")
    others = asked.eval_set(second)
    if others.held_out_by_training != images.held_out_by_training:
        which = "first" if others.held_out_by_training else "second"
        print_note(
            f"The {which} model may have learnt from these images: it was not trained on "
            f"{asked.data} as it is now."
        )
    return common(images, others)


def _write_page(
    path: Path, result: _Result, classifier: Classifier, lang: str, heading: str
) -> None:
    from vitral.report import write_evaluation_report

    write_evaluation_report(
        path,
        result.evaluation,
        result.split,
        classifier,
        lang,
        heading=heading,
        command=shlex.join(["vitral", *sys.argv[1:]]),
        unreadable=result.unreadable,
        unknown=result.unknown,
        compared=result.compared,
    )
    print_note(f"written: {path}")


def _refuse_beside(probe: str | None, unlabelled: bool, others: bool, labels: Path | None) -> None:
    """Raise UsageError for what does not go with a probe, or with images without labels."""
    if probe is not None and others:
        raise UsageError(PROBES_ALONE)
    if unlabelled and (others or probe or labels):
        raise UsageError(UNLABELLED_ALONE)


def _evaluate_parts(asked: in_parts.Asked, *, as_json: bool) -> None:
    """Score images in tar shards, from the parts that hold what the model says of each."""
    from vitral import parts

    def job(classifier: Classifier) -> Job:
        classifier.refuse_without_head()
        return parts.outputs()

    finished = in_parts.written(asked, job, held_out=True)
    if finished is None:
        return
    evaluation, unreadable = parts.evaluation(*finished)
    if as_json:
        print_json(evaluation.to_dict() | {"out": str(asked.out), "unreadable": unreadable})
        return
    print_lines(
        [f"data       {asked.data[0]}: {evaluation.samples:,} images, {unreadable:,} unreadable"]
    )
    print_lines(evaluation_lines(evaluation))


def _print_json(result: _Result) -> None:
    from vitral.data.decisions import to_json

    values = result.evaluation.to_dict() | {"split": result.split.name, "unknown": result.unknown}
    if result.decisions:
        values["decisions"] = to_json(result.decisions)
    values["unreadable"] = [problem.path for problem in result.unreadable]
    if result.compared is not None:
        name, comparison = result.compared
        values["compare"] = {"with": name} | comparison.to_dict()
    if result.foreign is not None:
        name, score = result.foreign
        values["foreign"] = {"images": name} | score.to_dict()
    print_json(values)


def _print(result: _Result, run: str, data: str) -> None:
    split = result.split
    counted = f"{result.evaluation.samples:,} {split.name} images"
    if len(split) < result.whole:
        counted += f" of {result.whole:,}, which both may be asked about"
    if split.name == "all":
        counted += ", those it learnt from included if they are there"
    print_lines([f"data       {data}: {counted}"])
    both = result.compared is not None
    print_lines(evaluation_lines(result.evaluation, result.unknown, both=both))
    if result.compared is not None:
        name, comparison = result.compared
        print_lines(comparison.lines(run, name))
    if result.foreign is not None:
        print_lines(result.foreign[1].lines())
