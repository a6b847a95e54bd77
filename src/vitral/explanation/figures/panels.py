"""The panels that figures share: the answer, the test of the map, the layers' own answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vitral.drawing import fonts
from vitral.drawing.figure import style_axes
from vitral.drawing.palette import AMBER, COBALT, INK, LEADING, MUTED, PAPER
from vitral.explanation.findings import Faithfulness, Findings, Internals

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def top_classes(axes: Axes, findings: Findings, kind: str) -> None:
    """Draw bars of the three most probable classes."""
    axes.set(xlim=(0, 1), ylim=(2.6, -0.4))
    axes.axis("off")
    for place, (name, probability) in enumerate(findings.top(3)):
        shown = fonts.class_label(findings.classes, findings.classes.index(name), kind)
        weight = "bold" if place == 0 else "normal"
        axes.barh(place + 0.14, 1, 0.3, color=INK, alpha=0.08)
        axes.barh(place + 0.14, probability, 0.3, color=COBALT)
        for x, text, align in ((0, shown, "left"), (1, f"{100 * probability:.1f} %", "right")):
            axes.text(x, place - 0.1, text, fontsize=11.5, weight=weight, ha=align, va="bottom")


def faithfulness_curve(axes: Axes, test: Faithfulness, *, deletion: bool) -> None:
    """Draw the probability of the target while patches go or come, beside the random orders."""
    share = 100 * test.removed
    random = test.random if deletion else test.random[:, ::-1]
    chosen = test.deletion if deletion else test.insertion
    axes.fill_between(share, random.min(axis=0), random.max(axis=0), color=MUTED, alpha=0.2)
    axes.plot(share, random.mean(axis=0), "--", color=MUTED, label="random order")
    axes.plot(share, chosen, color=COBALT, linewidth=2, label="this order")
    axes.set(xlim=(0, 100), ylim=(-0.02, 1.02))
    changed = "taken away" if deletion else "shown"
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK, loc="best")
    style_axes(axes, f"patches {changed}, %", "probability")


def logit_lens(axes: Axes, findings: Findings, internals: Internals, kind: str) -> None:
    """Draw a bar per layer: its best class and that one's probability; a dot for the target's."""
    shares = internals.layer_probabilities.astype(np.float64)
    best = shares.argmax(axis=1)
    places = np.arange(len(shares))
    target = findings.classes.index(findings.target) if findings.target else -1
    colours = [COBALT if index == target else MUTED for index in best]
    axes.barh(places, shares[places, best], 0.72, color=colours, alpha=0.85)
    dots = shares[:, target]
    axes.plot(dots, places, "o", color=AMBER, markersize=5, markeredgecolor=LEADING, clip_on=False)
    for place, index in zip(places, best, strict=True):
        inside = bool(shares[place, index] > 0.5)
        axes.text(
            0.015 if inside else float(shares[place, index]) + 0.025,
            float(place),
            fonts.class_label(findings.classes, int(index), kind),
            fontsize=9 if len(shares) <= 14 else 6.5,
            color=PAPER if inside else INK,
            va="center",
        )
    axes.set_yticks(places, ["input", *map(str, places[1:])])
    axes.set(xlim=(0, 1), ylim=(len(shares) - 0.4, -0.6))
    style_axes(axes, "probability of its best class", "after layer")


def attention_of(findings: Findings) -> str:
    """Say whose attention is shown."""
    match findings.query:
        case None:
            return "attention of the output"
        case "cls":
            return "attention of the class token"
        case (row, column):
            return f"attention of patch {row},{column}"
