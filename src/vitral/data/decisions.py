"""Say what Vitral decided about a user's data or weights, where it could have decided otherwise.

    Decision("split", "20 % of each class is held out (seed 0).")

A decision is made where the choice is made, once, and travels from there by itself: `vitral check`
and `vitral train` show each as one line at the start, `--json` and recipe.json list them, and the
report shows them. To add one:

- while a source is recognised (which files, which tables):   DataLayout(..., decisions=(Decision(
  "layout", "..."),))
- while it is scanned (which column, what became of pictures): scanned.decisions.append(Decision(
  "labels", "..."))
- while weights are read (what was assumed of them):           Weights(..., decisions=(Decision(
  "fit", "..."),))

The sentence is whole, names what was chosen and, where it can be changed, the option that changes
it. What is wrong with single files is a `Problem`; a decision counts them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

Topic = Literal[
    "recipe",  # which recipe, and why
    "layout",  # what kind of source this is, and which of its parts are read
    "labels",  # where the labels come from, and how many an image may have
    "classes",  # which classes there are: merged, left out, named by a file
    "split",  # which images are held out
    "files",  # which files are not used
    "pixels",  # how unusual pictures are read: turned upright, transparent, 16 bits, bands
    "start",  # what was assumed of the weights to start from
    "flips",  # whether mirrored pictures may be learnt from
    "fit",  # how a picture becomes the tensor that the network reads
]


@dataclass(frozen=True, slots=True)
class Decision:
    """Something that Vitral chose for the user.

    Attributes:
        topic: what it is about; lines come in the order of Topic.
        sentence: what was chosen.
        pairs: of classes, where it is about such.
    """

    topic: Topic
    sentence: str
    pairs: tuple[tuple[str, str], ...] = ()


def in_order(decisions: Iterable[Decision]) -> tuple[Decision, ...]:
    """Sorts decisions by topic and drops what is said twice."""
    topics = get_args(Topic)
    return tuple(sorted(dict.fromkeys(decisions), key=lambda one: topics.index(one.topic)))


def to_lines(decisions: Iterable[Decision], width: int = 6) -> list[str]:
    """Writes each decision as a line that begins with its topic, padded to `width`."""
    return [f"{one.topic:<{width}} {one.sentence}" for one in in_order(decisions)]


def to_json(decisions: Iterable[Decision]) -> list[dict[str, Any]]:
    """Gives plain JSON values: [{"topic": ..., "sentence": ...}], with "pairs" where there are."""
    values = []
    for one in in_order(decisions):
        pairs = {"pairs": [list(pair) for pair in one.pairs]} if one.pairs else {}
        values.append({"topic": one.topic, "sentence": one.sentence, **pairs})
    return values
