"""The option --classes of verbs that answer: a model with the class names of a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vitral.cli.printing import print_note

if TYPE_CHECKING:
    from vitral.classifier import Classifier


def named(classifier: Classifier, file: Path) -> Classifier:
    """Give a model the class names of a file, and say how the file was read."""
    from vitral.data import class_names

    names = class_names.read(file)
    renamed = classifier.named(names)
    if renamed is not classifier and (order := class_names.order_of(names)):
        print_note(order)
    return renamed
