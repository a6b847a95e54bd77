"""The memory of a run before it begins; nothing of the network is allocated for it.

Weights, gradients and the optimizer's state are counted. What the backward pass keeps is measured:
torch runs a forward pass on tensors without values (fake tensors) as the device would run it, and
says of each tensor that it saves.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode  # documented: "Fake tensor"
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call

from vitral.engines.torch_engine import autocast, uses_bf16
from vitral.model import ViT
from vitral.training import finetuning
from vitral.training.recipe import Recipe

SLOTS = {"adamw": 2, "lamb": 2, "sgd": 1}  # values that each optimizer keeps of a weight


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes that one process of a run needs.

    Attributes:
        weights, gradients, optimizer, average: float32 tensors.
        casts: the copies of the kernels that autocast makes in bfloat16.
        activations: what the backward pass keeps of the images of a micro-batch.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    casts: int
    activations: int

    @property
    def total(self) -> int:
        """Bytes if all were held at once; gradients replace activations, so somewhat too many."""
        return sum(asdict(self).values())


def estimate(recipe: Recipe, micro_batch: int, device: torch.device, *, shards: int = 1) -> Memory:
    """Return the memory of a process that learns `micro_batch` images at once.

    `shards` is the number of processes that share the weights out among them (FSDP2).
    """
    model = meta_network(recipe)
    parameters = sum(p.numel() for p in model.parameters())
    trainable = finetuning.trainable(model)
    bf16 = uses_bf16(recipe.precision, device, recipe.model.width)
    return Memory(
        weights=4 * parameters // shards,
        gradients=4 * trainable // shards,
        optimizer=4 * SLOTS[recipe.optimizer.kind] * trainable // shards,
        average=4 * trainable // shards if recipe.ema else 0,
        casts=2 * parameters if bf16 and shards == 1 else 0,
        activations=micro_batch * activations(recipe, device),
    )


@lru_cache(maxsize=4)  # of a large network it takes a few seconds
def activations(recipe: Recipe, device: torch.device) -> int:
    """Return the bytes that the backward pass keeps of one image on `device`.

    With checkpointing, what enters every block, and all of the one block that is computed again.
    """
    total = _bytes_per_image(recipe, device)
    if recipe.checkpointing:
        blocks = meta_network(recipe).blocks
        learning = sum(any(p.requires_grad for p in block.parameters()) for block in blocks)
        everything = _bytes_per_image(replace(recipe, checkpointing=False), device)
        total += (everything - total) // max(1, learning)
    return total


def meta_network(recipe: Recipe) -> ViT:
    """Return the network of a recipe, with what is to be tuned of it, on the meta device."""
    with torch.device("meta"):
        model = finetuning.untuned(recipe)
        finetuning.prepare(model, recipe.tune)
    return model


def _bytes_per_image(recipe: Recipe, device: torch.device) -> int:
    """What one image more adds to what a forward pass keeps; weights and their copies drop out."""
    model = meta_network(recipe).train()
    with FakeTensorMode():
        return _saved_bytes(model, 3, recipe, device) - _saved_bytes(model, 2, recipe, device)


def _saved_bytes(model: ViT, count: int, recipe: Recipe, device: torch.device) -> int:
    """Bytes of the images and of everything that is saved for the backward pass."""
    weights = {
        name: torch.empty(x.shape, device=device).requires_grad_(x.requires_grad)
        for name, x in model.named_parameters()
    }
    saved: dict[int, Tensor] = {}

    def save(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage()._cdata] = tensor
        return tensor

    images = save(torch.empty(count, model.spec.channels, *model.spec.size, device=device))
    precision = autocast(recipe.precision, device, recipe.model.width)
    with precision, saved_tensors_hooks(save, lambda tensor: tensor):
        logits = functional_call(model, weights, images)
        _loss = logits.float().logsumexp(1)  # stands for any
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
