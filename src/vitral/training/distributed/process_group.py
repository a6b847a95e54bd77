"""One process or many: which one this is, and what they tell one another.

    vitral train PHOTOS/ --devices 2
    torchrun --nproc-per-node 8 -m vitral train PHOTOS/ --out RUN      # any number of machines

A process alone has nothing to tell, so every method is free then. Only the first one writes files
and speaks; all of them raise the same errors, so that none waits for one that has left.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vitral import machine
from vitral.engines.torch_engine import best_device
from vitral.errors import MachineError, UsageError, VitralError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

T = TypeVar("T")
SILENCE = timedelta(minutes=30)  # the first process may write a large state for a while


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """This process among all that train together.

    Attributes:
        device: where it computes.
        rank, world_size: its number, from 0, and how many there are.
        restarts: how often torchrun has started all of them again.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1
    restarts: int = 0

    @property
    def is_main(self) -> bool:
        """Return whether this process writes and speaks for all."""
        return self.rank == 0

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Each value summed over all processes."""
        if self.world_size == 1:
            return list(values)
        # on the CPU, where no process waits for what its GPU was asked to compute before
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def all_reduce_in_place(self, tensor: Tensor) -> None:
        """Sum a tensor of the device over all processes, there; nothing waits for a GPU."""
        if self.world_size > 1:
            dist.all_reduce(tensor)

    def all_gather(self, value: T) -> list[T]:
        """Return what every process gave, in their order, for all of them."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: T) -> T:
        """Return what the first process gave, for all of them."""
        if self.world_size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def lost(self, error: Exception) -> bool:
        """Return whether it says that another process went away while this one waited for it."""
        gone = ("closed by peer", "reset by peer", "ncclRemoteError", "Broken pipe")
        return self.world_size > 1 and any(sign in str(error) for sign in gone)

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.world_size > 1:
            dist.barrier()

    @contextlib.contextmanager
    def on_main(self) -> Iterator[bool]:
        """True in the one process that writes; what it raises, all raise; all leave together."""
        error: VitralError | None = None
        try:
            yield self.is_main
        except VitralError as raised:
            error = raised
        errors = [failure for failure in self.all_gather(error) if failure is not None]
        if errors:
            raise error or errors[0]

    def mesh(self) -> DeviceMesh:
        """All processes in a row; with several on each of several machines, machines by processes.

        Weights are then shared out inside a machine, whose links are fast, and every machine holds
        them all (HSDP).
        """
        from torch.distributed.device_mesh import init_device_mesh  # a second, for sharding alone

        local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if 1 < local < self.world_size and self.world_size % local == 0:
            names = ("machines", "processes")
            return init_device_mesh(
                self.device.type, (self.world_size // local, local), mesh_dim_names=names
            )
        return init_device_mesh(self.device.type, (self.world_size,))


@contextlib.contextmanager
def initialised(device: str | None = None, *, alone: bool = True) -> Iterator[ProcessGroup]:
    """The processes that torchrun started, joined for as long as the block runs; or this one alone.

    `alone` False joins even a single process, which sharding needs.

    Raises MachineError for a device that is not there, UsageError where torchrun's variables are
    incomplete.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if count == 1 and alone:
        yield ProcessGroup(best_device(device), restarts=restarts)
        return
    chosen = _process_device(device)
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    if "WORLD_SIZE" in os.environ:
        missing = [
            name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ
        ]
        if missing:
            raise UsageError(
                f"WORLD_SIZE is {count} but {', '.join(missing)} is not set: start the processes "
                f"with torchrun, or with --devices."
            )
        _leave_with_the_launcher()
        dist.init_process_group(backend, timeout=SILENCE)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield ProcessGroup(chosen, dist.get_rank(), dist.get_world_size(), restarts)
        dist.barrier()
    finally:
        gc.collect()  # a reducer that outlives its group aborts the process at exit
        dist.destroy_process_group()


def check_sharding(device: str | None = None) -> None:
    """Raise MachineError where this torch cannot give each process a piece of a network.

    FSDP2 of torch 2.6 asks a CPU for events that it does not have.
    """
    if best_device(device).type == "cpu" and not hasattr(torch.cpu.Stream, "record_event"):
        raise MachineError(
            f"torch {torch.__version__} shares a network out on GPUs alone, and this is a CPU. "
            f"Leave --shard out, or install a newer torch (2.13 can)."
        )


def _leave_with_the_launcher() -> None:
    """A launcher that is gone takes its processes along; the run goes on from its last state."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        machine.die_with_parent()


def _process_device(name: str | None) -> torch.device:
    device = best_device(name)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    return device


def is_sharded(tensor: Tensor) -> bool:
    """Return whether this process holds a piece of it alone (a DTensor)."""
    return hasattr(tensor, "placements")


def local(tensor: Tensor) -> Tensor:
    """This process's piece of a sharded tensor (a view of it); any other tensor as it is."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def full(tensor: Tensor) -> Tensor:
    """All of a sharded tensor, which every process must ask for; any other tensor as it is."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor that every process holds, sharded as `like` is."""
    if not is_sharded(like) or is_sharded(tensor):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh = like.device_mesh  # type: ignore[attr-defined]
    placements = like.placements  # type: ignore[attr-defined]
    return distribute_tensor(tensor.to(like.device), mesh, placements, src_data_rank=None)
