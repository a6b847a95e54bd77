"""The memory of a run: by arithmetic before it begins."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from vitral.model import ViT
from vitral.model.layers import fuses
from vitral.training import finetuning
from vitral.training.recipe import Recipe

SLOTS = {"adamw": 2, "lamb": 2, "sgd": 1}  # values that each optimizer keeps of a weight


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Bytes of one process, by arithmetic.

    Attributes:
        weights, gradients, optimizer, average: float32 tensors; with bfloat16, `casts` are the
            copies of the kernels that autocast makes.
        activations: what the backward pass keeps of the images of one part of a step.
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


def arithmetic(
    recipe: Recipe, part: int, device: torch.device, *, bf16: bool, pieces: int = 1
) -> Memory:
    """Memory of a process that learns `part` images at once and holds one of `pieces` weights."""
    with torch.device("meta"):
        model = network(recipe)
    parameters = sum(p.numel() for p in model.parameters())
    trainable = finetuning.trainable(model)
    return Memory(
        weights=4 * parameters // pieces,
        gradients=4 * trainable // pieces,
        optimizer=4 * SLOTS[recipe.optimizer.kind] * trainable // pieces,
        average=4 * trainable // pieces if recipe.ema else 0,
        casts=2 * parameters if bf16 and pieces == 1 else 0,
        activations=part * activations(model, device, bf16=bf16),
    )


def activations(model: ViT, device: torch.device, *, bf16: bool) -> int:
    """Bytes that the backward pass of a model on the meta device would keep of one image.

    Of a block: what enters its two norms, in float32, and what enters and leaves its matrices and
    the activation function; fused attention keeps no (T, T) matrix. Blocks below the first value
    that learns keep nothing. A stem's are counted. Rather too many than too few: without class
    token the CPU's norms read bfloat16, and the frozen kernels of LoRA do not need their inputs.
    """
    spec, noise, cell = model.spec, model.dropouts, 2 if bf16 else 4
    tokens, width, inner, mlp = spec.tokens, spec.width, spec.attention_width, spec.mlp_width
    tokens -= round(noise.patch_dropout * (tokens - spec.prefix))
    token = 8 * width + cell * (2 * width + 4 * inner + 2 * mlp)
    token += 2 * cell * width * (spec.layer_scale is not None)
    token += 3 * cell * inner * spec.qk_norm
    token += 3 * cell * inner * (spec.positions == "rope2d")
    token += cell * (2 * width + mlp) * bool(noise.dropout)  # masks; a GPU's take a byte
    block = tokens * token
    relative, drops = spec.positions == "relative", bool(noise.attention_dropout)
    plain, dtype = not relative and not drops, torch.bfloat16 if bf16 else torch.float32
    fused = plain and fuses(device, dtype, tokens, learns=True, plain=True)
    # (T, T) matrices of each head: the softmax, and of dropout its mask and what it leaves
    squares = cell * spec.heads * tokens * tokens * (not fused) * (1 + 2 * drops)
    if relative:  # logits of every offset, also of dropped patches; then offsets differ by image
        squares += cell * spec.heads * tokens * (2 * spec.tokens - 1)
        squares += tokens * tokens * (9 if noise.patch_dropout else 1)
    learning, kept = not spec.depth, 0
    lower = [module for name, module in model.named_children() if name in ("stem", "patches")]
    learning |= any(p.requires_grad for module in lower for p in module.parameters())
    for layer in model.blocks:
        learning |= any(p.requires_grad for p in layer.parameters())
        kept += (4 * tokens * width if model.checkpointing else block + squares) * learning
    kept += (block + squares) * (model.checkpointing and learning)  # the one that is done again
    if any(p.requires_grad for p in model.stem.parameters()):
        kept += _held(model.stem, spec.channels, spec.size) * cell // 4
    pictures = (4 if not bf16 else 6) * spec.channels * spec.size[0] * spec.size[1]
    top = 4 * tokens * width * learning + 12 * max(spec.classes, spec.width)
    top += 4 * spec.tokens * width * bool(noise.patch_dropout)  # what the kept are taken from
    if model.pool is not None:  # the probe's keys and values
        top += cell * tokens * 3 * inner
    return kept + pictures + top


def network(recipe: Recipe) -> ViT:
    """With new weights, and with what is to be tuned of it, on torch's default device."""
    model = finetuning.untuned(recipe)
    finetuning.prepare(model, recipe.tune)
    return model


def _held(module: nn.Module, channels: int, pixels: tuple[int, int]) -> int:
    """Bytes that the backward pass of a module keeps of one more image."""
    held: list[int] = []
    for count in (1, 2):
        seen: dict[int, Tensor] = {}

        def keep(tensor: Tensor, seen: dict[int, Tensor] = seen) -> Tensor:
            seen[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            _kept_alive = module(torch.empty(count, channels, *pixels, device="meta"))
        held.append(sum(tensor.untyped_storage().nbytes() for tensor in seen.values()))
    return held[1] - held[0]


def ended(error: BaseException) -> bool:
    """Return whether an error says that memory ran out; on a CPU torch says so in words alone."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in ("can't allocate memory", "out of memory"))
