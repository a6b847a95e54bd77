"""Findings of an explanation as values: the map, its test, the inside of the network.

Nothing here computes on a network, draws or writes; the figures and the files are made of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from vitral.drawing.pictures import Picture
from vitral.explanation.request import Method, Query

Numbers = NDArray[np.float32]
Verdict = Literal[
    "better than random order", "no better than random order", "worse than random order"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Faithfulness:
    """The probability of one class while patches go or come; all curves have S + 1 points.

    Attributes:
        removed: (S + 1,) share of the patches that is changed at each step, from 0 to 1.
        deletion: (S + 1,), the most relevant patches replaced first; begins with the image.
        insertion: (S + 1,), the most relevant patches shown first; begins with the mean colour.
        random: (orders, S + 1), deletion in random orders. From right to left each curve is an
            insertion, also in random order, so its area is compared with both.
    """

    removed: Numbers = field(repr=False)
    deletion: Numbers = field(repr=False)
    insertion: Numbers = field(repr=False)
    random: Numbers = field(repr=False)

    @property
    def random_area(self) -> float:
        """Mean area under the curves of the random orders, deletion and insertion alike."""
        return float(self._area(self.random).mean())

    @property
    def random_spread(self) -> float:
        """Standard deviation of that area from one random order to the next."""
        return float(self._area(self.random).std(ddof=1))

    @property
    def deletion_score(self) -> float:
        """Area of random deletion less that of deletion in this order; above 0 is better."""
        return self.random_area - float(self._area(self.deletion))

    @property
    def insertion_score(self) -> float:
        """Area of insertion in this order less that of random insertion; above 0 is better."""
        return float(self._area(self.insertion)) - self.random_area

    def verdict(self, score: float) -> Verdict:
        """Judge a score: does it go beyond what nine in ten random orders would reach?"""
        count = len(self.random)
        # one more order lies above mean + margin in one of ten cases: Student's t, sd estimated
        margin = stdtrit(count - 1, 0.9) * self.random_spread * (1 + 1 / count) ** 0.5
        margin = max(float(margin), 1e-4)  # where every order gives the same, none is better
        if score > margin:
            return "better than random order"
        if score < -margin:
            return "worse than random order"
        return "no better than random order"

    def sentence(self) -> str:
        """Say the result in one line for a person."""
        away = self.random_area - self.deletion_score
        shown = self.random_area + self.insertion_score
        return (
            f"mean probability {away:.3f} when these patches are taken away first "
            f"({self.verdict(self.deletion_score)}), {shown:.3f} when they are shown first "
            f"({self.verdict(self.insertion_score)}, which has {self.random_area:.3f} ± "
            f"{self.random_spread:.3f})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain JSON values."""
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

    def _area(self, curve: Numbers) -> NDArray[np.float64]:
        heights = curve.astype(np.float64)  # numpy's own trapezoid is of numpy 2
        widths = np.diff(self.removed.astype(np.float64))
        return (widths * (heights[..., 1:] + heights[..., :-1]) / 2.0).sum(-1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Internals:
    """The inside of the network for one image; L layers, H heads, N tokens, prefix first.

    Attributes:
        attention: (L, H, N, N), softmax rows.
        rollout: (N, N), attention rollout; rows sum to 1.
        rollout_no_residual: (N, N), the same without the skip connections.
        rollout_heatmap: (rows, columns), rollout from the query to the patches; sums to 1.
        rollout_no_residual_heatmap: (rows, columns), the same without the skip connections.
        occlusion: (rows, columns), how much hiding a patch lowers the target; sums to 1; None
            without a head.
        relevance: (rows, columns), gradient × attention for the target; sums to 1; None without a
            head.
        attention_maps: (L, H, rows, columns), attention from the query; each sums to 1.
        layer_logits: (L + 1, K), the head read after each layer; row 0 is the embedding.
        layer_probabilities: (L + 1, K), of those logits, calibrated as the answer's.
        norms: (3, L, H, N), Euclidean norms of q, k and v.
        cosines: (patches, patches), of query and key in `layer`, mean over the heads.
        layer: the layer that the figures look at, counted from 1.
    """

    attention: Numbers = field(repr=False)
    rollout: Numbers = field(repr=False)
    rollout_no_residual: Numbers = field(repr=False)
    rollout_heatmap: Numbers = field(repr=False)
    rollout_no_residual_heatmap: Numbers = field(repr=False)
    occlusion: Numbers | None = field(repr=False)
    relevance: Numbers | None = field(repr=False)
    attention_maps: Numbers = field(repr=False)
    layer_logits: Numbers = field(repr=False)
    layer_probabilities: Numbers = field(repr=False)
    norms: Numbers = field(repr=False)
    cosines: Numbers = field(repr=False)
    layer: int

    @property
    def head_maps(self) -> Numbers:
        """Attention from the query in each head of `layer`, (H, rows, columns)."""
        return self.attention_maps[self.layer - 1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """Everything that was found about one image and one model.

    Attributes:
        path: where the image came from; "" for pixels given directly.
        picture: uint8 (H, W, 3), the image as the model received it.
        grid: (rows, columns) of patches.
        prefix: names of the tokens before the patches.
        method, query, layer, head: how `heatmap` was computed; see ExplainRequest.
        target: the class that is explained; None for a model without a head.
        heatmap: (rows, columns), the map of the method; sums to 1.
        probabilities: (K,), of the classes; empty for a model without a head.
        classes: K names.
        answer: what `predict` says of the image, as plain JSON values; empty where a network was
            explained that has no head or no calibration beside it.
        faithfulness: whether the map is true; None where it was not tested.
        internals: the inside of the network; None where it was not kept, and of a ResNet.
    """

    path: str = ""
    picture: Picture = field(repr=False)
    grid: tuple[int, int]
    prefix: tuple[str, ...] = ()
    method: Method = "occlusion"
    query: Query | None = None
    layer: int | None = None
    head: int | None = None
    target: str | None = None
    heatmap: Numbers = field(repr=False)
    probabilities: Numbers = field(repr=False)
    classes: tuple[str, ...] = field(repr=False)
    answer: Mapping[str, Any] = field(default_factory=dict, repr=False)
    faithfulness: Faithfulness | None = field(default=None, repr=False)
    internals: Internals | None = field(default=None, repr=False)

    @property
    def unsure(self) -> bool:
        """Tell whether the answer is below the threshold of the model's calibration."""
        return bool(self.answer.get("unsure", False))

    def top(self, count: int = 3) -> list[tuple[str, float]]:
        """List the most probable classes with their probabilities, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.classes[i], float(self.probabilities[i])) for i in order]
