"""Is an explanation true? Take patches away in its order and watch the probability.

Deletion and insertion (Petsiuk, Das & Saenko, "RISE", 2018) with the image's own mean colour in
place of a patch, beside patches in random order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit
from torch import Tensor, nn

from vitral.explanation.masked_scores import watched
from vitral.explanation.request import Question

Numbers = NDArray[np.float32]
Verdict = Literal[
    "better than random order", "no better than random order", "worse than random order"
]

ORDERS = 10  # random orders to compare with


@dataclass(frozen=True, kw_only=True, slots=True)
class Faithfulness:
    """The probability of one class while patches go or come; all curves have S + 1 points.

    Attributes:
        removed: (S + 1,) share of the patches that is changed at each step, from 0 to 1.
        deletion: (S + 1,), the most relevant patches replaced first; begins with the image.
        insertion: (S + 1,), the most relevant patches shown first; begins with the mean colour.
        random: (ORDERS, S + 1), deletion in random orders. Read backwards each is an insertion in
            a random order too, so that one area serves both.
    """

    removed: Numbers = field(repr=False)
    deletion: Numbers = field(repr=False)
    insertion: Numbers = field(repr=False)
    random: Numbers = field(repr=False)

    @property
    def random_area(self) -> float:
        """Mean area under the curves of the random orders, deletion and insertion alike."""
        return float(self._random_areas.mean())

    @property
    def random_spread(self) -> float:
        """Standard deviation of that area from one random order to the next."""
        return float(self._random_areas.std(ddof=1))

    @property
    def deletion_score(self) -> float:
        """Area of random deletion less that of deletion in this order; above 0 is better."""
        return self.random_area - float(self._area(self.deletion))

    @property
    def insertion_score(self) -> float:
        """Area of insertion in this order less that of random insertion; above 0 is better."""
        return float(self._area(self.insertion)) - self.random_area

    def verdict(self, score: float) -> Verdict:
        """What a score says: beyond what nine in ten random orders would reach."""
        count = len(self.random)
        margin = stdtrit(count - 1, 0.9) * self.random_spread * (1 + 1 / count) ** 0.5
        margin = max(float(margin), 1e-4)  # where every order gives the same, none is better
        if score > margin:
            return "better than random order"
        if score < -margin:
            return "worse than random order"
        return "no better than random order"

    def sentence(self) -> str:
        """One line for a person."""
        away = self.random_area - self.deletion_score
        shown = self.random_area + self.insertion_score
        return (
            f"mean probability {away:.3f} when these patches are taken away first "
            f"({self.verdict(self.deletion_score)}), {shown:.3f} when they are shown first "
            f"({self.verdict(self.insertion_score)}, which has {self.random_area:.3f} ± "
            f"{self.random_spread:.3f})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "meaning": "probability of the target while patches are replaced by the mean colour, "
            "the most relevant first (deletion), or shown first (insertion); scores are areas "
            "gained over random order, above 0 is better",
            "removed": self.removed.tolist(),
            "deletion": self.deletion.tolist(),
            "insertion": self.insertion.tolist(),
            "random_deletion": self.random.tolist(),
            "random_area": self.random_area,
            "random_spread": self.random_spread,
            "deletion_score": self.deletion_score,
            "insertion_score": self.insertion_score,
            "deletion_verdict": self.verdict(self.deletion_score),
            "insertion_verdict": self.verdict(self.insertion_score),
        }

    @property
    def _random_areas(self) -> NDArray[np.float64]:
        return self._area(self.random)

    def _area(self, curve: Numbers) -> NDArray[np.float64]:
        return np.trapezoid(curve.astype(np.float64), self.removed.astype(np.float64))


def faithfulness(
    model: nn.Module, images: Tensor, heat: Tensor, targets: Tensor, question: Question
) -> list[Faithfulness]:
    """Score one map per image.

    Args:
        model: in evaluation mode.
        images: (B, C, H, W), normalised.
        heat: (B, rows, columns), higher is more relevant; ties keep raster order.
        targets: int64 (B,), the class whose probability is watched.
        question: its steps (at most one per patch) and how logits become probabilities.
    """
    grid = (heat.shape[1], heat.shape[2])
    patches = grid[0] * grid[1]
    steps = min(question.steps, patches)
    counts = torch.linspace(0, patches, steps + 1).round().long()
    ranks = heat.flatten(1).cpu().argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    generator = torch.Generator().manual_seed(0)  # the same orders for every image and machine
    shuffled = torch.stack([torch.randperm(patches, generator=generator) for _ in range(ORDERS)])
    # shown[i, c, s]: which patches of image i are seen at step s of curve c
    orders = torch.cat([ranks[:, None], shuffled.expand(len(images), -1, -1)], dim=1)
    gone = orders[:, :, None] < counts[:, None]
    shown = torch.cat([gone[:, :1], ~gone], dim=1)  # insertion, deletion, random deletions
    once = [masks.flatten(0, 1).unique(dim=0, return_inverse=True) for masks in shown]
    counted = torch.tensor([len(distinct) for distinct, _ in once])  # curves share their ends
    owners = torch.arange(len(images)).repeat_interleave(counted)
    seen = torch.cat([distinct for distinct, _ in once]).unflatten(1, grid)
    found = watched(model, images, owners, seen, targets, question).exp().split(counted.tolist())
    curves = torch.stack([part[back] for part, (_, back) in zip(found, once, strict=True)])
    curves = curves.unflatten(1, (ORDERS + 2, steps + 1))
    removed = (counts / patches).numpy()
    return [
        Faithfulness(
            removed=removed,
            insertion=each[0].numpy(),
            deletion=each[1].numpy(),
            random=each[2:].numpy(),
        )
        for each in curves
    ]
