"""One network over many processes: the same weights in each (DDP), or a piece in each (FSDP2)."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from vitral.model import ViT
from vitral.training.distributed.process_group import ProcessGroup
from vitral.training.objectives.base import Objective


def compile_blocks(network: ViT) -> None:
    """torch.compile for each block, in place, so that no name changes."""
    for block in network.blocks:
        block.compile()


def shard(objective: Objective, group: ProcessGroup, *, bf16: bool) -> None:
    """Give each process its piece of every block and of the rest, in place (FSDP2).

    With bf16 the pieces travel as bfloat16; weights, gradients' sums and optimizer stay float32.
    """
    from torch.distributed.fsdp import (  # a second, for sharding alone
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    mesh = group.mesh()
    network = objective.backbone
    for block in network.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    for part in objective.children():  # each a root of its own: validation calls the backbone alone
        fully_shard(part, mesh=mesh, mp_policy=policy)
    called = ("logits_per_head", "representation", "inputs_per_head", "forward_patches")
    for method in called:
        register_fsdp_forward_method(network, method)


def wrap_ddp(objective: Objective, group: ProcessGroup, *, sharded: bool) -> nn.Module:
    """Return what a step calls: the objective, with gradients averaged over all processes."""
    if group.world_size == 1 or sharded:
        return objective
    # torch says so of a class token's gradient where a part is one image; it costs nothing
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    devices = [group.device] if group.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(objective, device_ids=devices)


def sync_gradients(forward: nn.Module, yes: bool) -> None:
    """Say whether the next backward passes exchange gradients: only a step's last one does."""
    if isinstance(forward, nn.parallel.DistributedDataParallel):
        forward.require_backward_grad_sync = yes
        return
    for part in forward.children():
        set_sync = getattr(part, "set_requires_gradient_sync", None)  # of what FSDP2 shards
        if set_sync is not None:
            set_sync(yes)


def reshard(objective: Objective) -> None:
    """Put the pieces that a forward pass gathered back; parameters held whole stay as they are."""
    for part in objective.children():
        of_fsdp = getattr(part, "reshard", None)
        if of_fsdp is not None:
            of_fsdp()
