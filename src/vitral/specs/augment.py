"""Augment: what may happen to a training image. Frozen, validated, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from vitral.errors import SpecError
from vitral.specs.fields import choice


@dataclass(frozen=True, kw_only=True, slots=True)
class Augment:
    """The random changes of a training view; the defaults suit a small set of photographs.

    Attributes:
        flavour: whose crop and RandAugment: "torchvision"; "timm", which differs in RandAugment;
            "big_vision", as in the authors' code; in JSON "tf" is its earlier name.
        crop: "inception" cuts a random rectangle and resizes it, "none" keeps the evaluation view.
        crop_scale: smallest and largest share of the picture's area that a crop keeps; the
            authors' is 0.05 to 1. Where a view is not square, of the largest part of its shape.
        crop_ratio: smallest and largest width / height of a crop, as multiples of that of the part
            that the evaluation view shows: what evaluation stretches is stretched alike, and where
            a view of 32x64 pixels keeps shapes, 1 is a crop twice as wide as high.
        flip: probability of a mirror image.
        rotate: largest turn to either side, in degrees.
        translate: largest shift in each direction, as a fraction of the side.
        zoom: smallest and largest enlargement.
        shear: largest slant to either side, in degrees.
        randaugment: (layers, magnitude 0 to 30) of RandAugment, or None. A magnitude is out of 30
            for torchvision, out of 10 for timm and for the authors, who went up to 20.
        trivial: TrivialAugment (Wide): one random operation.
        three: 3-Augment of DeiT III: grey, solarised or blurred; jitter=0.3 belongs to it.
        jitter: largest relative change of brightness, contrast and saturation.
        erase: probability that a random rectangle is painted over with the mean colour.
        mixup, cutmix: alpha of the Beta distribution from which images are mixed; 0 is off. With
            both, each batch takes one of them.
        repeats: how often each image of a batch comes, as another view each time.
    """

    EARLIER: ClassVar = {"flavour=tf": "big_vision"}  # for from_mapping

    flavour: Literal["torchvision", "timm", "big_vision"] = "torchvision"
    crop: Literal["inception", "none"] = "inception"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    rotate: float = 0.0
    translate: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0
    randaugment: tuple[int, int] | None = None
    trivial: bool = False
    three: bool = False
    jitter: float = 0.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    repeats: int = 1

    def __post_init__(self) -> None:
        """Refuse values that would change nothing, or everything, without saying so."""
        choice(self, "crop", Augment)
        choice(self, "flavour", Augment)
        for name in ("crop_scale", "crop_ratio", "zoom"):
            object.__setattr__(self, name, self._interval(name))
        if self.crop_scale[1] > 1:
            raise SpecError(f"Augment.crop_scale is a share of the area, not {self.crop_scale}.")
        for name, top in (
            ("flip", 1.0),
            ("erase", 1.0),
            ("rotate", 180.0),
            ("shear", 80.0),
            ("translate", 1.0),
            ("jitter", 1.0),
            ("mixup", 100.0),
            ("cutmix", 100.0),
        ):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= top:
                raise SpecError(f"Augment.{name} lies between 0 and {top:g}, not {value!r}.")
        if type(self.repeats) is not int or self.repeats < 1:
            raise SpecError(f"Augment.repeats is a whole number from 1, not {self.repeats!r}.")
        if self.randaugment is not None:
            object.__setattr__(self, "randaugment", self._randaugment())

    @property
    def warps(self) -> bool:
        """True if any of rotate, translate, zoom and shear does something."""
        return bool(self.rotate or self.translate or self.shear) or self.zoom != (1.0, 1.0)

    @property
    def mixes(self) -> bool:
        """True if images of a batch are mixed with one another."""
        return self.mixup > 0 or self.cutmix > 0

    def _interval(self, name: str) -> tuple[float, float]:
        try:
            low, high = (float(value) for value in getattr(self, name))
        except (TypeError, ValueError):
            low = high = 0.0
        if not 0 < low <= high:
            raise SpecError(
                f"Augment.{name} is (smallest, largest) with 0 < smallest <= largest, "
                f"not {getattr(self, name)!r}."
            )
        return low, high

    def _randaugment(self) -> tuple[int, int]:
        try:
            layers, magnitude = self.randaugment or (0, 0)
            valid = (
                int(layers) == layers >= 1 and int(magnitude) == magnitude and 0 <= magnitude <= 30
            )
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise SpecError(
                f"Augment.randaugment is (layers, magnitude 0 to 30), whole numbers, or None, "
                f"not {self.randaugment!r}."
            )
        return int(layers), int(magnitude)
