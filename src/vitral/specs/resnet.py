"""ResNetSpec: the convolutional stem of a hybrid, or a whole network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from vitral.errors import SpecError
from vitral.specs.fields import choice, from_mapping

GROUPS = 32  # of every group norm in both families


class Convolution(NamedTuple):
    """One convolution without bias: its kernel side, channels, and the map that leaves it."""

    kernel: int
    inputs: int
    outputs: int
    size: tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class ResNetSpec:
    """Bottleneck ResNet with standardised convolutions and group norm.

    Attributes:
        kind: "v1" is the hybrids' stem and big_vision's bit.py (norm and ReLU after each
            convolution, TensorFlow's SAME padding), "v2" is the paper's BiT, never a stem (norm and
            ReLU before each convolution, a norm at the end).
        blocks: units of each stage; () is the root alone, 1/4 of the image's side. Every stage
            but the first halves the map.
        width: channels of the root, 64 times the width factor.
        norm_eps: epsilon of the group norms: 1e-6 in the hybrids, 1e-5 in BiT and timm.
        weight_eps: epsilon of the weight standardisation,
        weight_eps_in: ... added to the standard deviation "std" (hybrids, 1e-5) or to the
            variance "var" (BiT 1e-10, timm 1e-8).
        root_pool: border of the root's max pooling: "same" (TensorFlow's, v1 only), "zero"
            (BiT's own code) or "infinite" (big_vision's bit_paper).
    """

    kind: Literal["v1", "v2"] = "v1"
    blocks: tuple[int, ...] = (3, 4, 9)
    width: int = 64
    norm_eps: float = 1e-6
    weight_eps: float = 1e-5
    weight_eps_in: Literal["std", "var"] = "std"
    root_pool: Literal["same", "zero", "infinite"] = "same"

    def __post_init__(self) -> None:
        """Refuse values that no network could have."""
        if not isinstance(self.blocks, list | tuple):
            raise SpecError(f"ResNetSpec.blocks are units per stage, not {self.blocks!r}.")
        object.__setattr__(self, "blocks", tuple(self.blocks))
        for name in ("kind", "weight_eps_in", "root_pool"):
            choice(self, name, ResNetSpec)
        if not all(type(units) is int and units > 0 for units in self.blocks):
            raise SpecError(f"ResNetSpec.blocks are positive numbers, not {self.blocks}.")
        if not isinstance(self.width, int) or self.width <= 0 or self.width % GROUPS:
            raise SpecError(
                f"ResNetSpec.width is a multiple of {GROUPS} (the groups of its norms), "
                f"not {self.width}."
            )
        for name in ("norm_eps", "weight_eps"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise SpecError(f"ResNetSpec.{name} is greater than 0, not {value!r}.")
        if (self.kind == "v1") != (self.root_pool == "same"):
            raise SpecError(
                f"ResNetSpec.root_pool '{self.root_pool}' does not belong to kind '{self.kind}': "
                "v1 pads as TensorFlow's 'same', v2 with 'zero' or 'infinite'."
            )
        if self.kind == "v2" and not self.blocks:
            raise SpecError("ResNetSpec.blocks of a v2 network needs at least one stage.")

    @property
    def stride(self) -> int:
        """Number of pixels of the image per pixel of the last map, along a side."""
        return 4 * 2 ** max(len(self.blocks) - 1, 0)

    @property
    def outputs(self) -> int:
        """Number of channels of the last map."""
        return self.width * 2 ** (len(self.blocks) + 1) if self.blocks else self.width

    def map_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) of the last map; each halving rounds up."""
        height, width = size
        return -(-height // self.stride), -(-width // self.stride)

    def convolutions(self, channels: int, size: tuple[int, int]) -> Iterator[Convolution]:
        """Yield every convolution from the root on, for an image of these channels and size."""
        yield Convolution(7, channels, self.width, _divided(size, 2))
        size = _divided(size, 4)
        inputs = self.width
        for stage, units in enumerate(self.blocks):
            middle = self.width * 2**stage
            for unit in range(units):
                before, size = size, _divided(size, 2 if stage and not unit else 1)
                yield Convolution(1, inputs, middle, before)
                yield Convolution(3, middle, middle, size)
                yield Convolution(1, middle, 4 * middle, size)
                if unit == 0:
                    yield Convolution(1, inputs, 4 * middle, size)
                inputs = 4 * middle

    def parameters(self, channels: int) -> int:
        """Count the kernels' values, and two per channel of each norm."""
        kernels = normed = 0
        for kernel, inputs, outputs, _ in self.convolutions(channels, (1, 1)):
            kernels += kernel**2 * inputs * outputs
            normed += outputs  # v1: every convolution is followed by a norm
        if self.kind == "v2":  # a norm before each convolution but the root and the projections
            inputs = self.width
            normed = self.outputs
            for stage, units in enumerate(self.blocks):
                middle = self.width * 2**stage
                normed += inputs + 4 * middle * (units - 1) + 2 * middle * units
                inputs = 4 * middle
        return kernels + 2 * normed

    def flops(self, channels: int, size: tuple[int, int]) -> int:
        """Count the operations on one image of that size: two per multiplication."""
        return sum(
            2 * kernel**2 * inputs * outputs * height * width
            for kernel, inputs, outputs, (height, width) in self.convolutions(channels, size)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for model.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ResNetSpec:
        """Undo to_dict; SpecError names an unknown field."""
        return from_mapping(cls, values)


def _divided(size: tuple[int, int], by: int) -> tuple[int, int]:
    return -(-size[0] // by), -(-size[1] // by)
