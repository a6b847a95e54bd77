"""The surface that every engine has, whatever it computes with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    Images = torch.Tensor | NDArray[np.float32]

Precision = Literal["auto", "fp32", "bf16"]


class Engine(Protocol):
    """A network that is ready to answer, in evaluation mode from the beginning.

    Nothing is switched from call to call, so that several threads may ask one engine at a time.
    Images are ready: normalised, (B, channels, height, width), a tensor or an array. What comes
    back are arrays, which need no torch.
    """

    @property
    def name(self) -> str:
        """Name the engine as `--engine` does."""
        ...

    @property
    def device(self) -> torch.device:
        """The device that images are wanted on; those from elsewhere are moved there."""
        ...

    def in_float32(self) -> Engine:
        """Return an engine of the same network that computes in float32; itself if it does."""
        ...

    def logits(self, images: Images) -> NDArray[np.float32]:
        """Compute the logits of images, float32 (B, classes)."""
        ...

    def representation(self, images: Images) -> NDArray[np.float32]:
        """Compute what the head reads, y of equation 4: float32 (B, width)."""
        ...

    def logits_and_detector_features(
        self, images: Images
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute logits, and after them what foreign images may be told by, in one pass.

        The second are float32 (B, read width + 6 width), of `ViT.logits_and_detector_features`.
        """
        ...
