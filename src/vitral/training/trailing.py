"""The numbers of a step, which stay on the device and are read one step late.

Reading a number waits until a GPU has done all that was asked of it, and leaves it without work
while the next step is prepared. So a step sends its numbers on their way and is read once the next
one has been asked for. On a CPU a number is there when the call returns, and nothing trails.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def works_apart(device: torch.device) -> bool:
    """Return whether a device computes while the CPU prepares what comes next."""
    return device.type == "cuda"


def steps_behind(device: torch.device) -> int:
    """Return how many steps may be under way before the oldest is read; equal in all processes."""
    return 1 if works_apart(device) else 0


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the CPU to `device` without waiting for what is computed there.

    A GPU only fetches by itself what lies in pinned memory; otherwise the copy waits for it.
    """
    if works_apart(device) and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Fetched:
    """Numbers on their way from a device to the CPU.

    Args:
        values: float (n,), as they are when the call is made.
    """

    def __init__(self, values: Tensor) -> None:
        self.arrived: torch.cuda.Event | None = None
        self.values = values
        if works_apart(values.device):
            self.values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self.values.copy_(values, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def read(self) -> list[float]:
        """Wait for the numbers, and return them."""
        if self.arrived is not None:
            self.arrived.synchronize()
        numbers: list[float] = self.values.tolist()
        return numbers


@dataclass(frozen=True, kw_only=True, slots=True)
class UnreadStep:
    """A step that was asked for, over all processes, with its numbers still on their way.

    Attributes:
        number: of the step, counted from 0.
        images: how many could be read.
        lr: learning rate of the head's parameters.
        indices: of this process's images, for an error.
        measures: names of what the objective measured.
        gradients: names of the parameters that have one.
        values: the summed loss, the sums of the measures, then the norm of each gradient.
        stop_requested: whether somebody asked the run to stop.
        save_due: whether the first process wants the state saved.
    """

    number: int
    images: int
    lr: float
    indices: tuple[int, ...]
    measures: tuple[str, ...]
    gradients: tuple[str, ...]
    values: Fetched
    stop_requested: bool = False
    save_due: bool = False
