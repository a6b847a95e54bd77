"""Dropouts: what training leaves out of a forward pass; no part of a ModelSpec (no weights)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vitral.errors import SpecError
from vitral.specs.fields import choice


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropouts:
    """Rates of what is dropped in training; all 0 by default, and silent in evaluation.

    Attributes:
        drop_path: probability that a sample skips a residual branch (stochastic depth).
        drop_path_rule: "linear" grows from 0 in the first block to drop_path in the last (AugReg),
            "constant" is the same in every block (DeiT-III).
        dropout: after adding positions, after the attention output, after GELU, after the MLP.
        attention_dropout: of the attention weights; 0 in every configuration of the authors.
        patch_dropout: fraction of its patches that each image leaves out.
    """

    drop_path: float = 0.0
    drop_path_rule: Literal["linear", "constant"] = "linear"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    patch_dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is not a rate."""
        for name in ("drop_path", "dropout", "attention_dropout", "patch_dropout"):
            rate = getattr(self, name)
            if not isinstance(rate, int | float) or not 0 <= rate < 1:
                raise SpecError(f"{name} is a rate of at least 0 and below 1, not {rate!r}.")
        choice(self, "drop_path_rule", Dropouts)

    def drop_path_of(self, block: int, depth: int) -> float:
        """The rate of one block, counted from 0."""
        match self.drop_path_rule:
            case "linear":
                return self.drop_path * block / max(depth - 1, 1)
            case "constant":
                return self.drop_path
            case _:
                raise SpecError(f"There is no drop_path_rule {self.drop_path_rule!r}.")
