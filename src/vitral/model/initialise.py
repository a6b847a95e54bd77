"""The first value of every parameter, as in the authors' code (vit_jax), in one table."""

import math
import re
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor
from torch.nn import init

from vitral.model.vit import ViT

CUT = 0.87962566103423978  # standard deviation of a unit normal that is cut at two deviations


@torch.no_grad()
def initialise(network: ViT, *, head_bias: float = 0.0, generator: Generator | None = None) -> None:
    """Give every parameter its first value, whatever it held before.

    The head is zero, so the first logits are exactly `head_bias` (big_vision: -6.9 or -10 for a
    sigmoid loss). Random values come from the generator, or from torch's global seed.
    """
    spec = network.spec
    zero_branches = spec.resnet is not None and spec.resnet.kind == "v1"
    probe = math.sqrt(6 / (1 + spec.width))  # Xavier's bound of one row
    normal = partial(init.normal_, generator=generator)
    xavier = partial(init.xavier_uniform_, generator=generator)

    def lecun_normal(value: Tensor) -> None:  # variance 1 / inputs after the cut, as in flax
        std = math.sqrt(1 / value[0].numel()) / CUT
        init.trunc_normal_(value, std=std, a=-2 * std, b=2 * std, generator=generator)

    table: dict[str, Callable[..., object]] = {  # the first rule that fits the whole name counts
        r"(distillation_)?head\.weight": init.zeros_,
        r"(distillation_)?head\.bias": partial(init.constant_, val=head_bias),
        r"stem\..*norm3\.weight": init.zeros_ if zero_branches else init.ones_,
        r".*norm\d?\.weight": init.ones_,
        # q, k and v are three matrices in the authors' code; Xavier's bound of all together is less
        r".*\.qkv\.weight": lambda qkv: [xavier(w) for w in qkv.chunk(3)],
        r".*\.(out|fc1|fc2)\.weight": xavier,
        r".*\.(fc1|fc2)\.bias": partial(normal, std=1e-6),
        r"(patches|pre_logits|stem\..*)\.weight": lecun_normal,
        r".*\.bias|cls": init.zeros_,
        r"distillation|positions\..*|.*\.relative": partial(normal, std=0.02),
        r"registers": partial(normal, std=1e-6),
        r".*\.scale[12]": partial(init.constant_, val=spec.layer_scale or 0.0),
        r"pool\.probe": partial(init.uniform_, a=-probe, b=probe, generator=generator),
    }
    for name, value in network.named_parameters():
        next(first for rule, first in table.items() if re.fullmatch(rule, name))(value)
