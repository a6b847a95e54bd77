"""Class by class what a fine-tune lost and won against the network that it began from.

changes = compare_classes(evaluation.predictions, before, known)     # before: key -> classes given
changes.classes[0].lost, changes.classes[0].p                        # 3 images, 0.25
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from vitral.evaluation.compare import SIGNIFICANT, mcnemar
from vitral.evaluation.intervals import wilson
from vitral.evaluation.score import MOST_CLASSES, Prediction, Table

Verdict = Literal["lost", "won", "not distinguishable", "new"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassChange:
    """One class before and after, on the same images.

    Attributes:
        name: the class.
        known: whether the network before knew it.
        images: that have it.
        before, after: images of them that each network gave it.
        lost: given it before alone; won: given it after alone.
        p: McNemar's exact test of the two; None for a class that is new or has no images.
        verdict: at 5 % of false discoveries among all classes (Benjamini and Hochberg 1995).
    """

    name: str
    known: bool
    images: int
    before: int
    after: int
    lost: int
    won: int
    p: float | None
    verdict: Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """All classes of a network before and after it learnt.

    Attributes:
        classes: in the order of the logits.
        dropped: classes that the network knew before and does not know now.
        images: held-out images of known classes; before, after: right ones among them.
        lost, won, p: over them together, as of a class.
        new_images, new_right: of classes that it did not know.
    """

    classes: tuple[ClassChange, ...]
    dropped: tuple[str, ...]
    images: int
    before: int
    after: int
    lost: int
    won: int
    p: float
    new_images: int
    new_right: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = asdict(self)
        values["classes"] = [asdict(change) for change in self.classes]
        values["dropped"] = list(self.dropped)
        return values

    def line(self) -> str:
        """Say in a sentence what became of the old classes and the new ones."""
        parts = []
        if self.images:
            parts.append(
                f"classes it knew {_share(self.before, self.images)} before, "
                f"{_share(self.after, self.images)} now ({self.lost:,} images lost, {self.won:,} "
                f"won, p = {self.p:.2g}, McNemar exact)"
            )
        else:
            parts.append("no held-out image is of a class that it knew: what it forgot is not seen")
        if self.new_images:
            parts.append(f"new ones {_share(self.new_right, self.new_images)}")
        worse = [change.name for change in self.classes if change.verdict == "lost"]
        if worse:
            parts.append(f"clearly worse: {', '.join(worse[:3])}" + ("…" if worse[3:] else ""))
        return "; ".join(parts)

    def table(self) -> Iterator[Table]:
        """The classes that changed most, for a terminal."""
        shown = sorted(self.classes, key=lambda c: (c.verdict == "not distinguishable", -c.lost))
        yield Table(
            title="against the network it began from",
            headings=("class", "images", "before", "now", "lost", "won", "p"),
            rows=tuple(
                (
                    change.name,
                    f"{change.images:,}",
                    f"{change.before:,}" if change.known else "new",
                    f"{change.after:,}",
                    f"{change.lost:,}",
                    f"{change.won:,}",
                    "-" if change.p is None else f"{change.p:.2g}",
                )
                for change in shown[:MOST_CLASSES]
            ),
        )


def compare_classes(
    predictions: Sequence[Prediction],
    before: Mapping[str, Sequence[str]],
    classes: Sequence[str],
    old: Sequence[str],
) -> Changes:
    """Compare the answers of two networks on the same images, class by class.

    Args:
        predictions: of the network now.
        before: the classes that the old one gave each image, by the key of the prediction; images
            that are not among them are left out.
        classes: that the network knows now.
        old: those that it knew.
    """
    counts = {name: np.zeros(5, int) for name in classes}  # images, before, after, lost, won
    together = np.zeros(5, int)
    new = np.zeros(5, int)
    known = set(old)
    present = set(classes)
    for answer in predictions:
        if answer.key not in before:
            continue
        for name in answer.labels:
            had = name in before[answer.key]
            has = name in answer.predicted
            step = np.array([1, had, has, had and not has, has and not had])
            counts[name] += step
            if name in known:
                together += step
            else:
                new += step
    tested = [name for name in classes if name in known and counts[name][0]]
    p = {name: mcnemar(int(counts[name][3]), int(counts[name][4])) for name in tested}
    clear = _discoveries(p)
    rows = []
    for name in classes:
        images, right_before, right_now, lost, won = map(int, counts[name])
        verdict: Verdict = "not distinguishable"
        if name not in known:
            verdict = "new"
        elif name in clear:
            verdict = "lost" if lost > won else "won"
        rows.append(
            ClassChange(
                name=name,
                known=name in known,
                images=images,
                before=right_before,
                after=right_now,
                lost=lost,
                won=won,
                p=p.get(name),
                verdict=verdict,
            )
        )
    images, right_before, right_now, lost, won = map(int, together)
    return Changes(
        classes=tuple(rows),
        dropped=tuple(name for name in old if name not in present),
        images=images,
        before=right_before,
        after=right_now,
        lost=lost,
        won=won,
        p=mcnemar(lost, won),
        new_images=int(new[0]),
        new_right=int(new[2]),
    )


def _discoveries(p: Mapping[str, float]) -> set[str]:
    """The classes whose change is clear at 5 % of false discoveries."""
    from scipy.stats import false_discovery_control  # noqa: PLC0415 - seconds

    if not p:
        return set()
    adjusted = false_discovery_control(list(p.values()))
    return {name for name, value in zip(p, adjusted, strict=True) if value < SIGNIFICANT}


def _share(right: int, images: int) -> str:
    low, high = wilson(right, images)
    return f"{100 * right / images:.1f} % ({100 * low:.1f}-{100 * high:.1f})"
