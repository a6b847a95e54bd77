"""The surface that every engine has, whatever it computes with."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Engine(Protocol):
    """A network that is ready to answer, in evaluation mode from the beginning.

    Nothing is switched from call to call, so that several threads may ask one engine at a time.
    Images are ready tensors: normalised, (B, channels, height, width).
    """

    @property
    def device(self) -> torch.device:
        """The device that images are wanted on; those from elsewhere are moved there."""
        ...

    def logits(self, images: Tensor) -> Tensor:
        """Compute the logits of images, float32 (B, classes), on the CPU."""
        ...

    def representation(self, images: Tensor) -> Tensor:
        """Compute what the head reads, y of equation 4: float32 (B, width), on the CPU."""
        ...

    def logits_and_detector_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits, and after them what foreign images may be told by, in one pass.

        The second are float32 (B, read width + width): the representation, and the mean patch
        token that enters the first block.
        """
        ...
