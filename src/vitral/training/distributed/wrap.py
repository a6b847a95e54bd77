"""One network over many processes: the same weights in each (DDP), or a piece in each (FSDP2)."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from vitral.model import StepSamples, ViT
from vitral.training.distributed.process_group import Ranks


class Heads(nn.Module):
    """Calls a network for the logits of each of its heads, as training wants them."""

    def __init__(self, network: ViT) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, samples: StepSamples | None = None) -> tuple[Tensor, ...]:
        """(B, 3, H, W) normalised to one (B, classes) per head."""
        return self.network.logits_per_head(images, samples=samples)


def compiled(network: ViT) -> None:
    """torch.compile for each block, in place, so that no name changes."""
    for block in network.blocks:
        block.compile()


def shard(network: ViT, ranks: Ranks, *, bf16: bool) -> None:
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
    mesh = ranks.mesh()
    for block in network.blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(network, mesh=mesh, mp_policy=policy)
    for method in ("logits_per_head", "representation"):
        register_fsdp_forward_method(network, method)


def spread(network: ViT, ranks: Ranks, *, sharded: bool) -> nn.Module:
    """What a step calls: logits per head, with gradients averaged over all processes."""
    heads = Heads(network)
    if ranks.count == 1 or sharded:
        return heads
    # torch says so of a class token's gradient where a part is one image; it costs nothing
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    devices = [ranks.device] if ranks.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(heads, device_ids=devices)


def synchronise(forward: nn.Module, yes: bool) -> None:
    """Whether the next backward passes exchange gradients: only the last part of a step does."""
    network = getattr(forward, "network", None)
    if isinstance(forward, nn.parallel.DistributedDataParallel):
        forward.require_backward_grad_sync = yes
    elif network is not None and hasattr(network, "set_requires_gradient_sync"):
        network.set_requires_gradient_sync(yes)


def put_back(network: nn.Module) -> None:
    """The pieces that a forward pass gathered, back to where they belong; whole weights stay."""
    reshard = getattr(network, "reshard", None)
    if reshard is not None:
        reshard()
