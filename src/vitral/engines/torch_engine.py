"""The engine that is torch itself, and where and in which precision torch computes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitral import machine
from vitral.engines.base import Precision
from vitral.errors import MachineError, UsageError
from vitral.model import ViT

if TYPE_CHECKING:
    from vitral.engines.base import Images

NARROW = 96  # with avx512_bf16 a step takes 0.6 to 0.7 of float32's; at 64, digits, as long


def best_device(name: str | None = None) -> torch.device:
    """Find the device called `name`, or the fastest one; MachineError if it is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0][:100]
        if "Expected one of" in reason:  # torch lists what nobody has
            reason = "devices are called cpu, cuda, cuda:1 or mps"
        raise MachineError(
            f"The device '{name}' cannot be used ({reason}). Leave --device out, or see "
            f"`vitral doctor`."
        ) from None
    return device


def uses_bf16(precision: Precision, device: torch.device, width: int) -> bool:
    """Decide on bfloat16; 'auto' asks for hardware that multiplies it fast.

    On a CPU 'auto' also asks for a network of at least NARROW `width`: a narrower one spends more
    on the casts than its products save.
    """
    if precision not in get_args(Precision):
        raise UsageError(f"precision is one of {get_args(Precision)}, not {precision!r}.")
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if width < NARROW:
        return False
    return device.type == "cpu" and machine.multiplies_bf16()


def autocast(
    precision: Precision, device: torch.device, width: int
) -> contextlib.AbstractContextManager[None]:
    """bfloat16 autocast where `uses_bf16` says so, otherwise nothing."""
    if not uses_bf16(precision, device, width):
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class TorchEngine:
    """An `Engine` that computes with torch.

    Attributes:
        model: the network; it is put into evaluation mode here, once.
        device: where it is and computes.
        precision: what it computes in, see `uses_bf16`.
    """

    model: ViT
    device: torch.device
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        """Put the network into evaluation mode."""
        self.model.eval()

    @property
    def name(self) -> str:
        """Name the engine as `--engine` does."""
        return "torch"

    def in_float32(self) -> TorchEngine:
        """Return an engine of the same network that computes in float32; itself if it does."""
        if not uses_bf16(self.precision, self.device, self.model.spec.width):
            return self
        return replace(self, precision="fp32")

    def logits(self, images: Images) -> NDArray[np.float32]:
        """Compute the logits of images, float32 (B, classes)."""
        return self._computed(self.model, images)

    def representation(self, images: Images) -> NDArray[np.float32]:
        """Compute what the head reads, y of equation 4: float32 (B, width)."""
        return self._computed(self.model.representation, images)

    def logits_and_detector_features(
        self, images: Images
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Compute logits, and what foreign images may be told by, in one pass."""
        with torch.no_grad(), autocast(self.precision, self.device, self.model.spec.width):
            logits, detector_features = self.model.logits_and_detector_features(
                torch.as_tensor(images, device=self.device)
            )
            return logits.float().cpu().numpy(), detector_features.float().cpu().numpy()

    def _computed(self, network: Callable[[Tensor], Tensor], images: Images) -> NDArray[np.float32]:
        with torch.no_grad(), autocast(self.precision, self.device, self.model.spec.width):
            values = network(torch.as_tensor(images, device=self.device))
            return values.float().cpu().numpy()
