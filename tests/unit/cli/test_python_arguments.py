"""What a command can be asked, its function in Python can be asked, and the other way round."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pytest

import vitral
from vitral import features
from vitral.classifier import Classifier
from vitral.cli import convert, embed, evaluate, explain, predict, push, repeat, report, train
from vitral.explanation import ExplainRequest
from vitral.planning.repeat import repeat as repeat_run
from vitral.report import rerender
from vitral.weights.convert import convert as convert_weights
from vitral.weights.push import push as push_weights

NAMES = {"from_": "start", "set_": "changes"}  # where Python has another word for an option
PRINTED = "prints what the function returns as a value"
WRITTEN = "writes what the function returns as a value"
LOADED = "stands for the classifier, which vitral.load gives once for many questions"
SHOWN = "what a command shows on its standard error"
PARTS = "of shards: vitral.parts.write"
BATCHED = "of no consequence but memory; a command has a fixed one"


def arguments(function: Callable[..., Any]) -> set[str]:
    """The parameters of a function or a verb, without the underscore that keeps a name free."""
    names = {NAMES.get(name, name) for name in inspect.signature(function).parameters}
    return {name.removesuffix("_") for name in names} - {"self"}


def fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


QUESTIONS: dict[str, tuple[Callable[..., Any], set[str], Mapping[str, str], Mapping[str, str]]] = {
    "train": (
        train.train,
        arguments(vitral.train),
        {
            "dry_run": "vitral.planning.plan.plan(Request(...)) gives the same as a value",
            "json": PRINTED,
            "devices": "starts the command again in each process; a script is started by torchrun",
        },
        {},
    ),
    "predict": (
        predict.predict,
        arguments(vitral.load) | arguments(Classifier.predict),
        {
            "images": "Classifier.predict takes one, as `image`; predict_files takes many",
            "classes": "Classifier.named(data.class_names.read(FILE))",
            "csv": WRITTEN,
            "out": PARTS,
            "devices": PARTS,
            "as_json": PRINTED,
        },
        {"image": "images", "announce": SHOWN},
    ),
    "evaluate": (
        evaluate.evaluate,
        arguments(vitral.load) | arguments(Classifier.evaluate),
        {
            "compare": "vitral.evaluation.compare takes two evaluations",
            "foreign": "vitral.foreign_images.score_foreign_images",
            "unlabelled": "vitral.foreign_images.drift_of",
            "probe": "vitral.features.probe",
            "csv": "vitral.evaluation.write_predictions writes an evaluation",
            "report": "vitral.report.write_evaluation_report writes an evaluation",
            "lang": "of the report",
            "classes": "Classifier.named, and Classifier.eval_set(class_file=FILE)",
            "labels": "Classifier.eval_set(label_file=FILE)",
            "out": PARTS,
            "devices": PARTS,
            "as_json": PRINTED,
        },
        {
            "announce": SHOWN,
            "batch": BATCHED,
            "workers": BATCHED,
        },
    ),
    "explain": (
        explain.explain,
        arguments(vitral.load) | arguments(Classifier.explain) | fields(ExplainRequest),
        {
            "images": "Classifier.explain takes one, as `image`; explain_files takes many",
            "out": "Explanation.save writes it",
            "data": "without images: vitral.explanation.explain_model",
            "fast": "ExplainRequest(method=gradient, steps=0, details=False)",
            "as_json": PRINTED,
        },
        {
            "image": "images",
            "request": "its fields are the options",
            "announce": SHOWN,
            "steps": "of the test, which a command always makes",
            "details": "a command keeps them of one image",
            "task": "that of the classifier, which sets it",
            "merge": "an explanation is of every token",
        },
    ),
    "embed": (
        embed.embed,
        arguments(features.embed) | arguments(vitral.load),
        {"out": WRITTEN, "devices": PARTS, "as_json": PRINTED},
        {"classifier": LOADED, "tick": SHOWN, "announce": SHOWN},
    ),
    "convert": (
        convert.convert,
        arguments(convert_weights),
        {"as_json": PRINTED},
        {"announce": SHOWN},
    ),
    "push": (
        push.push,
        arguments(push_weights),
        {"as_json": PRINTED},
        {"announce": SHOWN},
    ),
    "repeat": (
        repeat.repeat,
        arguments(repeat_run),
        {"as_json": PRINTED},
        {"announce": SHOWN},
    ),
    "report": (
        report.report,
        arguments(rerender),
        {"out": "called `path`"},
        {"path": "called --out", "announce": SHOWN},
    ),
}


@pytest.mark.parametrize("verb", QUESTIONS)
def test_a_command_and_its_function_can_be_asked_the_same(verb: str) -> None:
    command, of_python, command_alone, python_alone = QUESTIONS[verb]
    of_command = arguments(command)
    assert of_command - of_python == set(command_alone), f"options of `vitral {verb}` alone"
    assert of_python - of_command == set(python_alone), f"arguments of Python alone, of {verb}"
