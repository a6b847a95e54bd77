"""A run once more, from its recipe and its images: is the result the same, and if not, why?

done = repeat("runs/flowers", data="photos/", out="again")
done.verdict, done.since            # "within the interval", ("torch 2.12.0 then, 2.13.0 now",)
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from vitral.data import contents
from vitral.data.builtin import BUILT_IN
from vitral.data.decisions import Decision
from vitral.data.sources import Dataset
from vitral.errors import DataError, SpecError, UsageError, VitralError, WeightsError
from vitral.evaluation import Score
from vitral.planning.plan import first_weights, open_data
from vitral.storage import remote
from vitral.training import loop, run_folder
from vitral.training.recipe import Recipe
from vitral.weights.read import Weights, read_weights

Verdict = Literal["bit-equal", "within the interval", "different"]

# what of the environment may change a result, by what a person calls it
ENVIRONMENT = {
    "vitral": "Vitral",
    "code": "Vitral's code",
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "pillow": "Pillow",
    "python": "Python",
    "system": "the system",
    "device": "the device",
    "cpu": "the processor",
    "bf16": "products in bfloat16",
    "threads": "threads",
    "processes": "processes",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeBy:
    """The making of a model, and what came of it.

    Attributes:
        recipe: resolved.
        fingerprint: of its images; images: their counts and digests, empty where nobody kept them.
        environment: versions and machine.
        weights: the result.
        score, interval: on its held-out images; None where nobody kept them.
    """

    recipe: Recipe
    fingerprint: str | None
    images: Mapping[str, Any]
    environment: Mapping[str, Any]
    weights: Weights
    score: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Repetition:
    """The outcome of making a model again.

    Attributes:
        verdict: "bit-equal" where every tensor is the same to the bit; "within the interval" where
            the new score lies in the 95 % interval of the old one; else "different".
        since: what differs of the images, the versions and the machine, a clause each.
        headline: what the score is called.
        score, interval: now; score_before, interval_before: then.
        tensors: how many; equal: of them to the bit; largest: the largest difference of a value.
        run: the new run folder.
    """

    verdict: Verdict
    since: tuple[str, ...]
    headline: str
    score: float
    interval: tuple[float, float]
    score_before: float | None
    interval_before: tuple[float, float] | None
    tensors: int
    equal: int
    largest: float
    run: Path

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        before = self.interval_before
        return {
            "verdict": self.verdict,
            "since": list(self.since),
            "headline": self.headline,
            "before": {
                "score": self.score_before,
                "interval": None if before is None else list(before),
            },
            "now": {"score": self.score, "interval": list(self.interval)},
            "tensors": self.tensors,
            "equal": self.equal,
            "largest_difference": self.largest,
            "run": str(self.run),
        }

    def lines(self) -> Iterator[str]:
        """Say it for a terminal."""
        low, high = (100 * bound for bound in self.interval)
        if self.score_before is not None and self.interval_before is not None:
            then = [100 * bound for bound in self.interval_before]
            yield (
                f"then      {self.headline} {100 * self.score_before:.2f} % "
                f"({then[0]:.1f}-{then[1]:.1f})"
            )
        yield f"now       {self.headline} {100 * self.score:.2f} % ({low:.1f}-{high:.1f})"
        yield (
            f"tensors   {self.equal:,} of {self.tensors:,} are equal to the bit"
            + ("" if self.equal == self.tensors else f"; largest difference {self.largest:.2g}")
        )
        if self.verdict == "bit-equal":
            yield "verdict   bit-equal"
            return
        why = "; ".join(self.since) or (
            "nothing that is recorded differs: chance of this machine's threads and kernels"
        )
        link = ", since " if self.verdict == "different" else "; what differs: "
        yield f"verdict   {self.verdict}{link}{why}"
        yield f"run       {self.run}"


def repeat(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    device: str | None = None,
    announce: Callable[[str], None] = print,
) -> Repetition:
    """Train a model again as it was trained, into a new run folder, and compare the two.

    Args:
        run: a finished run folder, an artifact that a run made, or the id of one that was pushed.
        data: its images, where they lie elsewhere now.
        out: the new run folder; by default a dated one under runs/.
        device: such as "cuda:1"; by default the fastest.
        announce: called before a download begins.

    Raises WeightsError for what does not say how it was made, and for weights to start from that
    are not there; DataError for images that are not; and what training raises.
    """
    made = made_by(run, announce)
    source = os.fspath(data) if data is not None else made.recipe.data.source
    if not _there(source):
        raise DataError(
            f"The images that {os.fspath(run)} learnt from are not at {source}. Name where they "
            f"are now: vitral repeat {os.fspath(run)} PHOTOS/"
        )
    recipe = replace(made.recipe, data=replace(made.recipe.data, source=source))
    images = open_data(recipe.data, recipe.images.size, labelled=recipe.labelled)
    weights = _start(recipe, os.fspath(run))
    how = Decision("recipe", f"that of {os.fspath(run)}, which is made again")
    folder = None if out is None else Path(out)
    with run_folder.new_folder(folder, source, recipe.model.name) as path:
        done = loop.train(recipe, images, weights, path, device=device, decisions=[how])
        if not (path / "best").exists():
            raise WeightsError(f"{path} has no best/ to compare; finish it with --resume.")
        return compared(made, images, path, done.evaluation)


def made_by(run: str | os.PathLike[str], announce: Callable[[str], None] = print) -> MadeBy:
    """Read how a model was made, from its run folder or from its model.json.

    Raises WeightsError for a model that does not say it, UsageError for a run that is not finished.
    """
    path = Path(run)
    weights = read_weights(run, announce=announce)
    told = weights.card.made_by
    record: Any = {
        "recipe": told.get("recipe"),
        "fingerprint": (told.get("data") or {}).get("fingerprint"),
        "environment": told.get("environment"),
    }
    if (path / "recipe.json").is_file():
        try:
            content = json.loads((path / "recipe.json").read_text(encoding="utf-8"))
            record = {**record, **content} if isinstance(content, dict) else record
        except (OSError, ValueError):
            pass  # model.json tells the same
        if not (path / "last").exists():
            raise UsageError(
                f"{path} is not finished, so there is nothing to compare with. Finish it first: "
                f"vitral train --resume {path}"
            )
    try:
        if not isinstance(record["recipe"], dict):
            raise SpecError("it has no recipe: it was converted, or saved from a network")
        recipe = Recipe.from_dict(record["recipe"])
    except (SpecError, TypeError) as error:
        raise WeightsError(f"{os.fspath(run)} does not say how it was made: {error}.") from None
    metrics = weights.card.metrics
    interval = metrics.get("interval")
    score = next((metrics[n] for n in ("mean_average_precision", "accuracy") if n in metrics), None)
    if score is None and metrics:
        score = next(iter(metrics.values()))
    return MadeBy(
        recipe=recipe,
        fingerprint=record.get("fingerprint"),
        images=record.get("images") or {},
        environment=record.get("environment") or {},
        weights=weights,
        score=score,
        interval=tuple(interval) if isinstance(interval, list | tuple) else None,
    )


def compared(made: MadeBy, images: Dataset, path: Path, evaluation: Score) -> Repetition:
    """Compare a model with the run folder in which it was made again."""
    again = read_weights(path)
    before = made.weights.tensors
    now = again.tensors
    same = [n for n in before if n in now and torch.equal(before[n], now[n])]
    shaped = [n for n in before if n in now and before[n].shape == now[n].shape]
    largest = max((float((before[n] - now[n]).abs().max()) for n in shaped), default=0.0)
    verdict: Verdict = "different"
    if len(same) == len(before) == len(now) and made.weights.card.classes == again.card.classes:
        verdict = "bit-equal"
    elif made.interval is not None and made.interval[0] <= evaluation.score <= made.interval[1]:
        verdict = "within the interval"
    return Repetition(
        verdict=verdict,
        since=() if verdict == "bit-equal" else tuple(_since(made, images)),
        headline=evaluation.headline,
        score=evaluation.score,
        interval=evaluation.interval,
        score_before=made.score,
        interval_before=made.interval,
        tensors=len(before),
        equal=len(same),
        largest=largest,
        run=path,
    )


def _since(made: MadeBy, images: Dataset) -> Iterator[str]:
    """What differs between then and now, a clause each."""
    if made.fingerprint is not None and made.fingerprint != images.fingerprint:
        told = contents.difference(made.images, images.contents).rstrip(".")
        yield "other images" + (f" ({told})" if told else "")
    now = run_folder.environment()
    for key, name in ENVIRONMENT.items():
        then = made.environment.get(key)
        if then is not None and then != now[key]:
            yield f"{name} {then} then, {now[key]} now"
    unknown = [name for key, name in ENVIRONMENT.items() if key not in made.environment]
    if unknown and made.environment:
        yield f"not recorded then: {', '.join(unknown)}"


def _there(source: str) -> bool:
    """Whether images may be found under a name; what is no path is asked for when it is opened."""
    elsewhere = source in BUILT_IN or source.startswith("hf:") or remote.is_remote(source)
    return elsewhere or any(sign in source for sign in "{*?") or Path(source).exists()


def _start(recipe: Recipe, run: str) -> Weights | None:
    """The weights that a recipe begins from; what cannot be read is said with where it is from."""
    if recipe.start is None:
        return None
    try:
        return first_weights(recipe.start, recipe.rename)
    except VitralError as error:
        raise WeightsError(
            f"{run} began from the weights {recipe.start}, which it needs again: {error}"
        ) from None
