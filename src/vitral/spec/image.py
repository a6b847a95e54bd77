"""ImageSpec: how pixels become the tensor that a model expects."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vitral.errors import SpecError
from vitral.spec.fields import choice, from_mapping, pair


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSpec:
    """The preprocessing that belongs to a model; it travels in the artifact.

    Attributes:
        size: (height, width) in pixels of the tensor.
        fit: "crop" resizes the shorter side and cuts the centre, "pad" resizes the longer side
            and pads with the mean colour, "squash" ignores the aspect ratio.
        crop: fraction of the resized image that the centre crop keeps, for fit "crop"
            (timm's crop_pct: resize to size / crop, then cut size).
        interpolation: "bilinear" or "bicubic", antialiased.
        mean, std: per channel, of values in [0, 1]; 0.5 and 0.5 give the paper's [-1, 1].
    """

    size: tuple[int, int] = (224, 224)
    fit: Literal["crop", "pad", "squash"] = "crop"
    crop: float = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        """Normalise the types and refuse values that no image could have."""
        object.__setattr__(self, "size", pair("ImageSpec.size", self.size))
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        choice(self, "fit", ImageSpec)
        choice(self, "interpolation", ImageSpec)
        if not 0 < self.crop <= 1:
            raise SpecError(f"ImageSpec.crop is a fraction in (0, 1], not {self.crop}.")
        finite = all(math.isfinite(value) for value in (*self.mean, *self.std))
        if len(self.mean) != len(self.std) or not self.mean or not finite or min(self.std) < 1e-6:
            raise SpecError(
                f"ImageSpec.mean and ImageSpec.std need one finite value per channel and std > 0, "
                f"not {self.mean} and {self.std}."
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for model.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ImageSpec:
        """The inverse of to_dict; SpecError names an unknown or a missing field."""
        return from_mapping(cls, values)
