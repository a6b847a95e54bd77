"""Balanced gradients: what each patch gives to one class, in one pass forward and back.

The gradient of a logit along the tokens, times the tokens, would add up to the logit if every step
of the network were linear. It is made so: what a token is multiplied by within a block is held
fixed while the gradient goes back (the deviation that LayerNorm divides by, the gate of the GELU),
and of the two factors of a product, attention and values, each gets half of it. LibraGrad (Mehri
et al. 2024) and AttnLRP (Achtibat et al. 2024) hold these to be what keeps plain gradients of
transformers from telling where an answer comes from.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vitral.model import ViT
from vitral.model.layers import Attention, Block, Mlp
from vitral.model.positions import PositionContext


def balanced_gradient(model: ViT, images: Tensor, targets: Tensor) -> Tensor:
    """Measure how much each token gives to the class chosen for its image.

    What stands for a class is its logit less the mean of all, so that what speaks for every class
    alike counts for none.

    Args:
        model: in evaluation mode, with at least one block and a head.
        images: (B, C, H, W), normalised.
        targets: int64 (B,), the class to explain.

    Returns (B, T), negative where a token speaks against the class.
    """
    with torch.no_grad():
        embedded = model.embed(images, any_size=True)
    entered = embedded.tokens.detach().requires_grad_(True)
    tables = embedded.tables
    with torch.enable_grad():
        x = entered
        after = []
        for number, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            x = x if tables is None else x + tables[number % len(tables)]
            x = _block(block, x, embedded.context)
            after.append(x)
        logits = model.logits_from_tokens(*after)
        chosen = logits.gather(1, targets[:, None]).sum() - logits.mean(dim=1).sum()
    (slope,) = torch.autograd.grad(chosen, [entered])
    return (slope * entered.detach()).sum(dim=2)


def _block(block: Block, x: Tensor, context: PositionContext | None) -> Tensor:
    """Equations 2 and 3, as `Block.forward` computes them in evaluation mode."""
    mixed = _attention(block.attention, _norm(block.norm1, x), context)
    x = x + (mixed if block.scale1 is None else mixed * block.scale1)
    changed = _mlp(block.mlp, _norm(block.norm2, x))
    return x + (changed if block.scale2 is None else changed * block.scale2)


def _norm(norm: torch.nn.Module, x: Tensor) -> Tensor:
    assert isinstance(norm, torch.nn.LayerNorm)
    centred = x - x.mean(dim=-1, keepdim=True)
    deviation = (centred.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt()
    return centred / deviation.detach() * norm.weight + norm.bias


def _attention(attention: Attention, x: Tensor, context: PositionContext | None) -> Tensor:
    q, k, v = attention.project(x, context)
    weights = attention.softmax(q, k, context)
    mixed = _halved(weights).to(v.dtype) @ _halved(v)
    out: Tensor = attention.out(mixed.transpose(1, 2).flatten(2))
    return out


def _mlp(mlp: Mlp, x: Tensor) -> Tensor:
    hidden = mlp.fc1(x)
    with torch.no_grad():  # GELU(h) = h times a gate; at 0 that is a half
        opened = F.gelu(hidden, approximate=mlp.gelu)
        gate = torch.where(hidden.abs() > 1e-6, opened / hidden, 0.5)
    out: Tensor = mlp.fc2(hidden * gate)
    return out


def _halved(x: Tensor) -> Tensor:
    """Return x, of which half of the gradient goes back."""
    return x / 2 + (x / 2).detach()
