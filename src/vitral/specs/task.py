"""Task: what the outputs of a network mean, and the probabilities that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

TaskKind = Literal["single_label", "multi_label"]


@dataclass(frozen=True, slots=True)
class Task:
    """The kind of answer that a classifier gives of an image, and so the meaning of its logits.

    Attributes:
        kind: "single_label", where the classes exclude each other, or "multi_label", where an image
            has any number of them, each with a probability of its own.
        temperature: of the calibration; it divides the logits of a single-label task.
    """

    kind: TaskKind = "single_label"
    temperature: float = 1.0

    @property
    def multi_label(self) -> bool:
        """True if an image may have any number of the classes."""
        return self.kind == "multi_label"

    def probabilities(self, logits: ArrayLike) -> NDArray[np.float32]:
        """The probability of each class, float32: logits (..., classes) of that shape."""
        values = np.asarray(logits, np.float64)
        match self.kind:
            case "single_label":
                values = values / self.temperature
                shares = np.exp(values - values.max(axis=-1, keepdims=True, initial=-np.inf))
                shares /= shares.sum(axis=-1, keepdims=True)
            case "multi_label":
                shares = np.exp(-np.logaddexp(0, -values))
        return shares.astype(np.float32)

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """The logarithms of `probabilities`, exact where those are near 0."""
        from torch.nn.functional import logsigmoid  # noqa: PLC0415 - specs are read without torch

        match self.kind:
            case "single_label":
                return (logits.float() / self.temperature).log_softmax(dim=-1)
            case "multi_label":
                return logsigmoid(logits.float())
