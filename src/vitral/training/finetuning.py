"""Training less than everything: the head, the last blocks, or low-rank updates (LoRA).

prepare(model, recipe.tune)  after the first weights are loaded; freezes what is not to learn
plain(model)                 the tensors of the untouched network, the updates merged into them
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitral.errors import SpecError
from vitral.model import ViT, build
from vitral.specs import Dropouts
from vitral.training.recipe import Recipe, Tune

SCALE = 2.0  # of the update: alpha / rank of the paper, with alpha = 2 * rank
_HEADS = ("head", "distillation_head")
_TOP = ("norm", "pool", "pre_logits", *_HEADS)


class LowRank(nn.Linear):
    """A linear layer whose kernel stays: W x + b + 2 U (D x), Hu et al. 2021 (arXiv:2106.09685).

    `down` D is (rank, inputs), `up` U (outputs, rank). U begins at zero, so that the first outputs
    are those of the layer; D as in the authors' loralib. The names of `weight` and `bias` stay,
    and no gradient of the whole kernel is ever computed.
    """

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        bias = layer.bias is not None
        super().__init__(layer.in_features, layer.out_features, bias=bias, device="meta")
        self.weight = layer.weight
        self.bias = layer.bias
        self.down = nn.Parameter(layer.weight.new_empty(rank, layer.in_features))
        self.up = nn.Parameter(layer.weight.new_zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        update = F.linear(F.linear(x, self.down), self.up)
        return F.linear(x, self.weight, self.bias) + SCALE * update


def untuned(recipe: Recipe) -> ViT:
    """The network of a recipe with new weights, on torch's default device; all of it learns."""
    dropouts = Dropouts() if recipe.model.is_resnet else recipe.noise
    return build(recipe.model, dropouts, checkpointing=recipe.checkpointing)


def prepare(model: ViT, tune: Tune) -> None:
    """Freeze, in place, what `tune` leaves alone, and add what it learns.

    Args:
        model: with the weights that it starts from.
        tune: "full" trains everything; "probe" the head(s); "last" also its number of blocks and
            what stands between them and the head (norm, pool, pre_logits); "lora" the head(s) and
            low-rank updates of the qkv and out of every block. The rest is frozen, norms and
            embeddings included.

    New values come from torch's global seed. Raises SpecError for what this network cannot do.
    """
    _check(tune, model)
    frozen = model.spec.depth - tune.blocks
    match tune.kind:
        case "full":
            return
        case "probe" | "lora":
            learning: tuple[str, ...] = _HEADS
        case "last":
            learning = (*_TOP, *(f"blocks.{i}" for i in range(frozen, model.spec.depth)))
        case _:
            raise SpecError(f"There is no way to tune '{tune}'.")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(tuple(f"{part}." for part in learning)))
    for block in model.blocks[:frozen] if tune.kind == "last" else ():
        for part in block.modules():  # what cannot learn from noise only suffers it
            for rate in {"drop_path", "dropout"} & vars(part).keys():
                setattr(part, rate, 0.0)
    for block in model.blocks if tune.kind == "lora" else ():
        _add_low_rank(block.get_submodule("attention"), tune.rank)


def _add_low_rank(attention: nn.Module, rank: int) -> None:
    for name in ("qkv", "out"):
        layer = attention.get_submodule(name)
        if isinstance(layer, nn.Linear):  # not what stands for the map of out_projection=False
            setattr(attention, name, LowRank(layer, rank).train(layer.training))


def trainable(model: nn.Module) -> int:
    """Values that learn."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def plain(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the untouched network that computes the same: its names, order and types.

    Where nothing was added these are the model's own tensors, not copies.
    """
    return merged(model.state_dict())


@torch.no_grad()
def merged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`plain` of a state dict: every kernel with its low-rank update in it."""
    result = {}
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        up = tensors.get(f"{layer}.up")
        down = tensors.get(f"{layer}.down")
        if up is None or down is None:
            result[name] = tensor.detach()
        elif part == "weight":
            update = SCALE * (up.cpu().double() @ down.cpu().double())
            result[name] = (tensor.cpu().double() + update).to(tensor)  # some devices lack float64
        elif part not in ("up", "down"):
            result[name] = tensor.detach()
    return result


def _check(tune: Tune, model: ViT) -> None:
    """Raise SpecError for blocks that this network does not have."""
    spec = model.spec
    if tune.kind in ("last", "lora") and spec.depth == 0:
        raise SpecError(
            f"tune is 'full' or 'probe' for {spec.name}, a ResNet without blocks, not '{tune}'."
        )
    if tune.blocks > spec.depth or tune.rank > spec.width:
        most = spec.depth if tune.kind == "last" else spec.width
        raise SpecError(
            f"tune is '{tune.kind}:1' to '{tune.kind}:{most}' for {spec.name}, not '{tune}'."
        )
