"""Requests to `explain`: which method, which class, whose attention.

Layers, heads, rows and columns count from 1, as in the paper and in every figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from vitral.errors import ModelError, UsageError
from vitral.specs import ModelSpec
from vitral.specs.task import Task
from vitral.wording import listed

Method = Literal["occlusion", "gradient", "relevance", "rollout", "attention"]
Query = Literal["cls"] | tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainRequest:
    """A request to `explain`; the defaults ask which patches the answer needs.

    Attributes:
        method: "occlusion" (how much hiding a patch lowers one class, in up to 64 forward
            passes), "gradient" (integrated gradients for one class, three passes forward and back),
            "relevance" (gradient × attention for one class, in one pass forward and
            back), "rollout" (attention of all blocks together) or "attention" (of one layer). None
            is "attention" where a query, a layer or a head is named, and otherwise "occlusion"
            ("rollout" without a head).
        target: name of the class to explain; None is the most probable one.
        query: the token whose attention is read: "cls", a patch (row, column), or None for what
            the model's head reads.
        layer, head: of "attention"; None is the last layer and the mean of its heads.
        steps: of the deletion and insertion curves; 0 leaves the test out.
        details: whether to keep what is inside the network (every layer's attention and more).
        task: what the logits mean.
    """

    method: Method | None = None
    target: str | None = None
    query: Query | None = None
    layer: int | None = None
    head: int | None = None
    steps: int = 10
    details: bool = True
    task: Task = field(default_factory=Task)

    def resolve(
        self, spec: ModelSpec, grid: tuple[int, int], classes: Sequence[str]
    ) -> ExplainRequest:
        """Decide the method, and refuse what this model cannot be asked.

        Raises ModelError for what this network has not, UsageError for what does not exist.
        """
        named = (self.query, self.layer, self.head) != (None, None, None)
        default: Method = "occlusion" if spec.classes else "rollout"
        method = self.method or ("attention" if named else default)
        if method not in get_args(Method):
            raise UsageError(f"The method is one of {', '.join(get_args(Method))}, not {method!r}.")
        if method in ("rollout", "attention") and not spec.depth:
            raise ModelError(
                "This model is a ResNet without a transformer, so it has no attention; "
                "method occlusion or relevance explains the answer of its head."
            )
        if method in ("occlusion", "gradient", "relevance") and not spec.classes:
            raise ModelError(
                "This model has no head, so no class to explain; use method rollout or attention."
            )
        if method != "attention" and (self.layer, self.head) != (None, None):
            raise UsageError(
                f"{method} reads all layers and heads; to see one, use method attention."
            )
        if method in ("occlusion", "gradient", "relevance") and self.query is not None:
            raise UsageError(
                f"{method} is read from the answer; a query goes with method attention or rollout."
            )
        _check_number("Layers", self.layer, spec.depth)
        _check_number("Heads", self.head, spec.heads)
        self._check_query(spec, grid)
        if self.target is not None and self.target not in classes:
            names = listed(classes, 20) or "none"
            raise UsageError(f"The model has no class '{self.target}'; its classes are {names}.")
        if not 0 <= self.steps <= 1000:
            raise UsageError(f"steps is a number from 0 to 1000, not {self.steps}.")
        return replace(self, method=method)

    def _check_query(self, spec: ModelSpec, grid: tuple[int, int]) -> None:
        patches = f"a patch is ROW,COLUMN: rows are 1 to {grid[0]} and columns 1 to {grid[1]}"
        match self.query:
            case None:
                return
            case "cls":
                if not spec.class_token:
                    raise ModelError(f"This model has no class token to ask; {patches}.")
            case (int(row), int(column)):
                if not (1 <= row <= grid[0] and 1 <= column <= grid[1]):
                    raise UsageError(f"There is no patch {row},{column}; {patches}.")
            case other:
                raise UsageError(f"A query is cls or a patch, not {other!r}; {patches}.")


def _check_number(what: str, value: int | None, most: int) -> None:
    if value is not None and (type(value) is not int or not 1 <= value <= most):
        raise UsageError(f"{what} are 1 to {most}; there is no {value!r}.")
