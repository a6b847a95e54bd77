"""The choice of a recipe, by what is known of the data, and the reason for it in a clause."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from vitral import catalog
from vitral.data.builtin import BUILT_IN
from vitral.data.sources import Dataset
from vitral.engines.torch_engine import best_device
from vitral.errors import DataError
from vitral.images.decode import Picture
from vitral.planning.request import Request
from vitral.specs import ModelSpec

SMALL = 50_000  # training images: fewer need strong augmentation
LARGE = 2_000_000  # training images: more need none
FEW = 1000  # training images for which solving for a head is nearly as good, and done at once
FEW_PER_CLASS = 10  # likewise, of each class
SHALLOW = 8  # blocks: with fewer, every layer is fine-tuned alike
LOOKED_AT = 9  # pictures whose size is read


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Facts of the data and the machine that decide between recipes.

    Attributes:
        count: of the training images.
        classes: how many.
        size: (height, width) in pixels of a usual image; None if unknown.
        gpu: whether one is there.
    """

    count: int
    classes: int
    size: tuple[int, int] | None = None
    gpu: bool = True

    @classmethod
    def of(cls, data: Dataset) -> Facts:
        """Read the facts off an open data set; the size is the median of its first pictures."""
        sizes = []
        for index in range(min(LOOKED_AT, len(data.train))):
            with suppress(DataError):  # the loop tells of what it cannot read
                sizes.append(Picture(data.train.read(index)).size)
        sizes.sort(key=lambda size: size[0] * size[1])
        return cls(
            count=len(data.train),
            classes=len(data.classes),
            size=sizes[len(sizes) // 2] if sizes else None,
            gpu=best_device().type != "cpu",
        )


class Choice(NamedTuple):
    """The name of a recipe, and the reason in a clause."""

    name: str
    reason: str


def choose(request: Request, facts: Facts | None = None, start: ModelSpec | None = None) -> Choice:
    """Choose the recipe that a request means; `start` is the network of the weights of --from."""
    if request.recipe is not None:
        return Choice(request.recipe, "named by --recipe")
    if request.start is not None:
        return _from_weights(request, facts, start)
    if request.data in BUILT_IN:
        return Choice(request.data, "made for this built-in data")
    if request.model is not None and catalog.model(request.model).is_resnet:
        return Choice(
            "bit-i1k", f"{request.model} is a ResNet, and there are no weights to start from"
        )
    if facts is None:
        return Choice("scratch-small", "no weights to start from")
    basis = f"{facts.count:,} images of {facts.classes:,} classes and no weights to start from"
    if facts.count < SMALL:
        return Choice("scratch-small", f"{basis}: strong augmentation on a small network (AugReg)")
    if not facts.gpu:
        return Choice("scratch-small", f"{basis}, and no GPU for more than a small network")
    if facts.count <= LARGE:
        return Choice(
            "scratch-large", f"{basis}: enough for a plain S/16 with RandAugment and mixup"
        )
    return Choice("paper-i21k", f"{basis}: so many that augmentation would hurt (AugReg)")


def _from_weights(request: Request, facts: Facts | None, start: ModelSpec | None) -> Choice:
    kind = None if request.tune is None else request.tune.kind
    if kind == "probe":
        return Choice("probe", "--tune probe solves for a head on the weights of --from")
    if kind == "lora":
        return Choice("lora", "--tune lora learns low-rank updates of the weights of --from")
    if start is not None and start.is_resnet:
        return Choice("bit-hyperrule", "the weights of --from are a ResNet's")
    choice = Choice("finetune", "--from names weights to start from")
    if start is not None and start.depth < SHALLOW:
        choice = Choice("finetune-small", f"--from names weights of {start.depth} blocks")
    if facts is None:
        return choice
    few = facts.count < FEW_PER_CLASS * facts.classes or (facts.count < FEW and not facts.gpu)
    # a probe forgets
    hint = "; for so few, --tune probe is much quicker" if few and not request.keep else ""
    counts = f"for {facts.count:,} images of {facts.classes:,} classes"
    return Choice(choice.name, f"{choice.reason}, {counts}{hint}")
