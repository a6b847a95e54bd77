"""One door to the engines: batches in, logits out, or what the head reads of each image.

Today's engine is torch itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from vitral.data.loader import Batch
from vitral.data.sources import Problem
from vitral.errors import MachineError, UsageError
from vitral.images import preprocess
from vitral.model import ViT
from vitral.specs import ImageSpec

Precision = Literal["auto", "fp32", "bf16"]
NARROW = 96  # with avx512_bf16 a step takes 0.6 to 0.7 of float32's; at 64, digits, as long


def best_device(name: str | None = None) -> torch.device:
    """The device called `name`, or the fastest one that is there; MachineError if it is not."""
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
    """Whether to compute in bfloat16; 'auto' asks for hardware that multiplies it fast.

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
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def autocast(
    precision: Precision, device: torch.device, width: int
) -> contextlib.AbstractContextManager[None]:
    """bfloat16 autocast where `uses_bf16` says so, otherwise nothing."""
    if not uses_bf16(precision, device, width):
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Outputs:
    """What an engine says of a stream of batches, in the order of the stream.

    Attributes:
        logits: float32 (N, classes).
        labels: int64 (N,).
        indices: int64 (N,), positions in the split.
        failed: images that could not be decoded and are therefore not among the N.
    """

    logits: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    failed: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Representations:
    """What the head reads of a stream of batches, in the order of the stream.

    Attributes:
        vectors: float32 (N, width).
        indices, failed: as of Outputs.
    """

    vectors: np.ndarray
    indices: np.ndarray
    failed: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Engine:
    """A network on a device, with the preprocessing it expects.

    Attributes:
        model: the network; `run` and `logits` put it into evaluation mode and back.
        images: its ImageSpec.
        device, precision: where and how it computes.
    """

    model: nn.Module
    images: ImageSpec
    device: torch.device
    precision: Precision = "auto"

    def logits(self, images: Tensor) -> Tensor:
        """Normalised images (B, channels, height, width) -> float32 logits (B, classes), on CPU."""
        return self._computed(self.model, images)

    def representation(self, images: Tensor) -> Tensor:
        """Normalised images -> what the head reads, y of equation 4: float32 (B, width), on CPU."""
        assert isinstance(self.model, ViT)  # of any other network nobody knows what its head reads
        return self._computed(self.model.representation, images)

    def _computed(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        training = self.model.training
        self.model.eval()
        with torch.no_grad(), self._autocast():
            computed = network(images.to(self.device)).float().cpu()
        self.model.train(training)
        return computed

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        spec = getattr(self.model, "spec", None)  # of any other network nothing is known
        return autocast(self.precision, self.device, NARROW if spec is None else spec.width)

    def run(self, batches: Iterable[Batch]) -> Outputs:
        """All logits of a stream of batches; every image that could be read counts once."""
        return Outputs(*self._run(self.logits, batches))

    def represent(self, batches: Iterable[Batch]) -> Representations:
        """As `run`, of the representations."""
        vectors, _, indices, failed = self._run(self.representation, batches)
        return Representations(vectors, indices, failed)

    def _run(
        self, compute: Callable[[Tensor], Tensor], batches: Iterable[Batch]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[Problem, ...]]:
        """What is computed, (N, D), with the labels, indices and failures of the stream."""
        computed, labels, indices = [], [], []
        failed: list[Problem] = []
        for batch in batches:
            failed.extend(batch.failed)
            if len(batch.images):
                images = preprocess.normalise(batch.images.to(self.device), self.images)
                computed.append(compute(images).numpy())
                labels.append(batch.labels.numpy())
                indices.append(batch.indices.numpy())
        empty = np.zeros(0, np.int64)
        return (
            np.concatenate(computed) if computed else np.zeros((0, 0), np.float32),
            np.concatenate(labels) if labels else empty,
            np.concatenate(indices) if indices else empty,
            tuple(failed),
        )
