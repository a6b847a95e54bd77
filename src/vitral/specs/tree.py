"""ClassTree: which class belongs to which group, as far up as there are groups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vitral.errors import SpecError


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassTree:
    """Classes and the groups above them; it travels in the artifact.

    Attributes:
        parents: the group right above each class or group; the topmost have none and are not keys.
        threshold: the probability from which on a group is the answer where no class is sure; None
            where none was fitted.

    Raises SpecError for a circle and for names that are no text.
    """

    parents: Mapping[str, str] = field(default_factory=dict)
    threshold: float | None = None

    def __post_init__(self) -> None:
        """Refuse circles."""
        if not isinstance(self.parents, Mapping):
            raise SpecError(f"ClassTree.parents names a group for each class, not {self.parents}.")
        for name, parent in self.parents.items():
            if not (isinstance(name, str) and isinstance(parent, str) and name and parent):
                raise SpecError(f"ClassTree.parents are names, not {name!r}: {parent!r}.")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise SpecError(f"ClassTree.threshold is a probability, not {self.threshold}.")
        safe: set[str] = set()
        for name in self.parents:
            way: list[str] = []
            at: str | None = name
            while at is not None and at not in safe:
                if at in way:
                    circle = " < ".join([*way[way.index(at) :], at])
                    raise SpecError(f"The tree goes round in a circle: {circle}.")
                way.append(at)
                at = self.parents.get(at)
            safe.update(way)

    def above(self, name: str) -> tuple[str, ...]:
        """Name the groups above a class or group, the nearest first."""
        return tuple(self._way_up(name))

    def _way_up(self, name: str) -> Iterator[str]:
        while (parent := self.parents.get(name)) is not None:
            yield parent
            name = parent

    def groups(self, classes: Iterable[str]) -> tuple[str, ...]:
        """Name every group of these classes, sorted."""
        return tuple(sorted({group for name in classes for group in self.above(name)}))

    def members(self, group: str, classes: Sequence[str]) -> tuple[int, ...]:
        """Find the classes of a group: indices into `classes`, its own name's among them."""
        return tuple(
            k for k, name in enumerate(classes) if name == group or group in self.above(name)
        )

    def levels(self, classes: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Name the group of each class on each level of groups, the coarsest first.

        A class that has no group so far down keeps its nearest; without any it stands for itself.
        """
        groups = {*self.groups(classes)}
        ways = []
        for name in classes:
            way = (name, *self.above(name)) if name in groups else self.above(name)
            ways.append(way[::-1])
        deepest = max((len(way) for way in ways), default=0)
        return tuple(
            tuple(
                way[min(d, len(way) - 1)] if way else name
                for name, way in zip(classes, ways, strict=True)
            )
            for d in range(deepest)
        )

    def of(self, classes: Iterable[str]) -> ClassTree:
        """Keep these classes and the groups above them alone."""
        kept: dict[str, str] = {}
        for name in classes:
            for child, parent in zip((name, *self.above(name)), self.above(name), strict=False):
                kept[child] = parent
        return replace(self, parents=dict(sorted(kept.items())))

    def renamed(self, names: Mapping[str, str]) -> ClassTree:
        """Give classes other names: the new one of each old one; groups keep theirs."""
        parents = {names.get(name, name): parent for name, parent in self.parents.items()}
        return replace(self, parents=parents)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for model.json."""
        return {"parents": dict(self.parents), "threshold": self.threshold}

    @classmethod
    def from_dict(cls, values: Any) -> ClassTree:
        """Read what to_dict gave; SpecError where it is something else."""
        if not isinstance(values, dict) or set(values) != {"parents", "threshold"}:
            raise SpecError(f"A tree of classes has parents and a threshold, not {values!r:.80}.")
        threshold = values["threshold"]
        if threshold is not None and not isinstance(threshold, int | float):
            raise SpecError(f"ClassTree.threshold is a probability, not {threshold!r:.40}.")
        return cls(parents=values["parents"], threshold=threshold)
