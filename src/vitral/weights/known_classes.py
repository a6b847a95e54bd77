"""The classes that weights know by name: which rows of their head a fine-tune keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vitral.catalog import wordnet
from vitral.errors import UsageError
from vitral.weights.read import Weights
from vitral.wording import did_you_mean, listed

Renames = Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownClasses:
    """The classes of some images beside those of weights, matched by name.

    Attributes:
        classes: of the images, in the order of the logits.
        old: of the weights, in theirs.
        places: for each of `classes` its place in `old`, -1 where the weights do not know it.
    """

    classes: tuple[str, ...]
    old: tuple[str, ...]
    places: tuple[int, ...]

    @classmethod
    def of(cls, weights: Weights, classes: Sequence[str]) -> KnownClasses:
        """Match names; one that the weights have twice says nothing, as numbers of no names do.

        ImageNet's classes are known by WordNet id as well.
        """
        old = weights.card.classes
        counts = Counter(old)
        places = {name: place for place, name in enumerate(old) if counts[name] == 1}
        for other, name in wordnet.other_names(old).items():
            if name in places and name not in classes:  # --keep has both, and each is a class
                places.setdefault(other, places[name])
        if not set(old) <= set(classes) and not _named(weights):
            places = {}
        return cls(
            classes=tuple(classes),
            old=old,
            places=tuple(places.get(name, -1) for name in classes),
        )

    @property
    def kept(self) -> tuple[str, ...]:
        """The classes whose rows are kept."""
        pairs = zip(self.classes, self.places, strict=True)
        return tuple(name for name, place in pairs if place >= 0)

    @property
    def new(self) -> tuple[str, ...]:
        """The classes that the weights do not know."""
        pairs = zip(self.classes, self.places, strict=True)
        return tuple(name for name, place in pairs if place < 0)

    @property
    def dropped(self) -> tuple[str, ...]:
        """The classes that the weights know and the images do not have."""
        present = {*self.classes, *(self.old[place] for place in self.places if place >= 0)}
        return tuple(name for name in self.old if name not in present)

    def line(self, *, solved: bool = False) -> str:
        """Say in a sentence what became of the head; `solved` where a probe replaces it."""
        if solved:
            return "A probe solves for the whole head, whatever classes the weights knew."
        parts = [f"The head's rows of {len(self.kept):,} classes are kept by name"]
        if self.new:
            verb = "begin" if len(self.new) > 1 else "begins"
            parts.append(f"{_named_few(self.new)} {verb} at the class mean")
        if self.dropped:
            parts.append(f"dropped: {_named_few(self.dropped)}")
        return "; ".join(parts) + "."


def renamed(weights: Weights, renames: Renames) -> Weights:
    """Give classes of weights other names, all at once, so that two may change places.

    Names that the weights have twice are told apart first, see `distinct`.

    Raises UsageError for a class that the weights do not have, for one that is to get two names,
    and for a name that two classes would then have.
    """
    old = distinct(weights.card.classes)
    names: dict[str, str] = {}
    for before, after in renames:
        if before not in old:
            raise UsageError(
                f"--rename {before}={after}: the weights have no class '{before}'; "
                f"{did_you_mean(before, old, f'theirs are {listed(old)}.')}"
            )
        if names.get(before, after) != after:
            raise UsageError(
                f"--rename gives '{before}' two names, '{names[before]}' and '{after}'; leave one."
            )
        names[before] = after
    result = tuple(names.get(name, name) for name in old)
    twice = [name for name, count in Counter(result).items() if count > 1]
    if twice:
        own = [before for before in old if names.get(before, before) == twice[0]]
        raise UsageError(
            f"--rename would call {len(own)} classes '{twice[0]}' ({listed(own)}); a name is of "
            f"one class. To let two change places rename both: --rename a=b --rename b=a."
        )
    return replace(weights, card=replace(weights.card, classes=result))


def distinct(classes: Sequence[str]) -> tuple[str, ...]:
    """Tell classes of one name apart by their number, as ImageNet's two cranes: 'crane (517)'."""
    counts = Counter(classes)
    return tuple(
        f"{name} ({number})" if counts[name] > 1 else name for number, name in enumerate(classes)
    )


def _named(weights: Weights) -> bool:
    """Whether the classes have names of their own, rather than numbers that a converter gave."""
    numbers = tuple(str(number) for number in range(len(weights.card.classes)))
    if weights.card.classes != numbers:
        return True
    return weights.format == "vitral" and "converted" not in weights.card.made_by


def _named_few(names: Sequence[str]) -> str:
    return f"{len(names):,} {'classes' if len(names) > 1 else 'class'} ({listed(names, 3)})"
