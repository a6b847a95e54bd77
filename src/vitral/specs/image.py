"""ImageSpec: how pixels become the tensor that a model expects."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from vitral.errors import SpecError
from vitral.specs.fields import choice, from_mapping, pair


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSpec:
    """The preprocessing that belongs to a model; it travels in the artifact.

    Attributes:
        size: (height, width) in pixels of the tensor.
        fit: how the image is resized to floor(size / crop): "crop" covers it, "pad" stays inside
            it, both keeping the aspect ratio, "squash" becomes it. Then the centre of `size` is
            cut out, and what is missing is filled with the mean colour.
        crop: fraction of the resized image that the centre cut keeps (timm's crop_pct).
        centre: where the cut starts when the margin is odd: "round" goes to the even pixel (timm,
            torchvision), "floor" to the smaller one (transformers, Google).
        interpolation: "bilinear" or "bicubic".
        resize: whose resize it is: "pillow" averages over all pixels and rounds to 8 bits after
            the rows and after the columns (timm, torchvision, transformers), "torch" averages in
            floats (DINOv3), "tensorflow" takes the nearest four alone (Google; for "bilinear").
        mean, std: per channel, of values in [0, 1]; 0.5 and 0.5 give the paper's [-1, 1].
        bands: the three bands of a TIFF that become red, green and blue, counted from 1; None
            takes pictures as they are.
        value_range: the values of files of more than 8 bits that become black and white; None is
            the whole range of up to 16 bits, and what wider values say of themselves.
    """

    size: tuple[int, int] = (224, 224)
    fit: Literal["crop", "pad", "squash"] = "crop"
    crop: float = 1.0
    centre: Literal["round", "floor"] = "round"
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    resize: Literal["pillow", "torch", "tensorflow"] = "pillow"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    bands: tuple[int, int, int] | None = None
    value_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Normalise the types and refuse values that no image could have."""
        object.__setattr__(self, "size", pair("ImageSpec.size", self.size))
        object.__setattr__(self, "mean", tuple(float(value) for value in self.mean))
        object.__setattr__(self, "std", tuple(float(value) for value in self.std))
        choice(self, "fit", ImageSpec)
        choice(self, "centre", ImageSpec)
        choice(self, "interpolation", ImageSpec)
        choice(self, "resize", ImageSpec)
        if self.resize == "tensorflow" and self.interpolation != "bilinear":
            raise SpecError(
                f'ImageSpec.resize = "tensorflow" is for interpolation = "bilinear", '
                f'not "{self.interpolation}".'
            )
        if not 0 < self.crop <= 1:
            raise SpecError(f"ImageSpec.crop is a fraction in (0, 1], not {self.crop}.")
        finite = all(math.isfinite(value) for value in (*self.mean, *self.std))
        if len(self.mean) != len(self.std) or not self.mean or not finite or min(self.std) < 1e-6:
            raise SpecError(
                f"ImageSpec.mean and ImageSpec.std need one finite value per channel and std > 0, "
                f"not {self.mean} and {self.std}."
            )
        self._check_values()

    def _check_values(self) -> None:
        """Refuse bands and a range of values that no file could have."""
        if self.bands is not None:
            object.__setattr__(self, "bands", tuple(self.bands))
            if len(self.bands) != 3 or not all(type(b) is int and b > 0 for b in self.bands):
                raise SpecError(
                    f"ImageSpec.bands names three bands, counted from 1, like [4, 3, 2], not "
                    f"{list(self.bands)}."
                )
        if self.value_range is not None:
            ends = tuple(float(value) for value in self.value_range)
            object.__setattr__(self, "value_range", ends)
            if len(ends) != 2 or not -math.inf < ends[0] < ends[1] < math.inf:
                raise SpecError(
                    f"ImageSpec.value_range is the values that become black and white, like "
                    f"[0, 3000], not {list(ends)}."
                )

    @property
    def antialias(self) -> bool:
        """True if shrinking averages over all pixels."""
        return self.resize != "tensorflow"

    @property
    def sentence(self) -> str:
        """Says in words how a picture becomes the tensor."""
        goal, read = (
            f"{height}x{width}"
            for height, width in ([int(side / self.crop) for side in self.size], self.size)
        )
        match self.fit:
            case "crop":
                how = f"resized until it covers {goal}, and its middle {read} is read"
            case "pad":
                how = f"resized to fit into {goal} and padded with the mean colour"
            case "squash":
                how = f"stretched to {goal}, whatever its shape"
        if self.crop < 1 and self.fit != "crop":
            how += f", and its middle {read} is read"
        mean = ", ".join(f"{value:.3g}" for value in self.mean)
        std = ", ".join(f"{value:.3g}" for value in self.std)
        return (
            f"A picture is {how} (images.fit={self.fit}, images.crop={self.crop:.3g}), less the "
            f"mean {mean}, divided by {std}."
        )

    @property
    def sentence_of_bands(self) -> str:
        """Says in words which bands and values are shown; "" where pictures are as they come."""
        sentences = []
        if self.bands is not None:
            red, green, blue = self.bands
            sentences.append(f"Of a TIFF band {red} is red, {green} green and {blue} blue.")
        if self.value_range is not None:
            low, high = self.value_range
            sentences.append(
                f"Of files of more than 8 bits {low:g} is black and {high:g} white "
                f"(images.value_range)."
            )
        return " ".join(sentences)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for model.json and recipe.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ImageSpec:
        """Undo to_dict; SpecError names an unknown or a missing field."""
        return from_mapping(cls, values)
