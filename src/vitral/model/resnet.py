"""Bottleneck ResNets with standardised convolutions: stems and whole networks (V1), BiT (V2)."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitral.errors import ModelError
from vitral.specs import ResNetSpec
from vitral.specs.resnet import GROUPS


class ResNet(nn.Module):
    """The root and stages of a ResNet: images (B, channels, H, W) become maps."""

    def __init__(self, spec: ResNetSpec, channels: int) -> None:
        super().__init__()
        norm = partial(nn.GroupNorm, GROUPS, eps=spec.norm_eps)
        self.root_pool = spec.root_pool
        self.root = StandardisedConv(spec, channels, spec.width, 7, 2)
        self.root_norm = norm(spec.width) if spec.kind == "v1" else None
        self.stages = nn.Sequential()
        for stage, units in enumerate(spec.blocks):
            middle = spec.width * 2**stage
            first = Unit(spec, 2 * middle if stage else spec.width, middle, 2 if stage else 1)
            rest = (Unit(spec, 4 * middle, middle, 1) for _ in range(units - 1))
            self.stages.append(nn.Sequential(first, *rest))
        self.norm = norm(spec.outputs) if spec.kind == "v2" else None

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (B, spec.outputs, H / stride, W / stride); each halving rounds up."""
        x = self.root(x)
        x = x if self.root_norm is None else F.relu(self.root_norm(x))
        match self.root_pool:
            case "same":
                x = F.max_pool2d(padded_same(x, 3, 2, -math.inf), 3, 2)
            case "zero":  # the map is not rectified yet, so a border of zeros can win over it
                x = F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2)
            case "infinite":
                x = F.max_pool2d(x, 3, 2, padding=1)
            case _:
                raise ModelError(f"There is no root_pool '{self.root_pool}'.")
        x = self.stages(x)
        return x if self.norm is None else F.relu(self.norm(x))


class Unit(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; V1 norms after each, V2 before."""

    def __init__(self, spec: ResNetSpec, inputs: int, middle: int, stride: int) -> None:
        super().__init__()
        self.kind = spec.kind
        outputs = 4 * middle
        norm = partial(nn.GroupNorm, GROUPS, eps=spec.norm_eps)
        self.conv1 = StandardisedConv(spec, inputs, middle, 1)
        self.conv2 = StandardisedConv(spec, middle, middle, 3, stride)
        self.conv3 = StandardisedConv(spec, middle, outputs, 1)
        normed = (middle, middle, outputs) if spec.kind == "v1" else (inputs, middle, middle)
        self.norm1, self.norm2, self.norm3 = (norm(channels) for channels in normed)
        self.shortcut = self.shortcut_norm = None
        if inputs != outputs:
            self.shortcut = StandardisedConv(spec, inputs, outputs, 1, stride)
            self.shortcut_norm = norm(outputs) if spec.kind == "v1" else None

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 4 * middle, H / stride, W / stride) of (B, inputs, H, W)."""
        if self.kind == "v1":
            y = F.relu(self.norm1(self.conv1(x)))
            y = F.relu(self.norm2(self.conv2(y)))
            if self.shortcut is not None and self.shortcut_norm is not None:
                x = self.shortcut_norm(self.shortcut(x))
            return F.relu(x + self.norm3(self.conv3(y)))
        y = F.relu(self.norm1(x))
        x = x if self.shortcut is None else self.shortcut(y)  # BiT projects what is normed
        y = self.conv2(F.relu(self.norm2(self.conv1(y))))
        return x + self.conv3(F.relu(self.norm3(y)))


class StandardisedConv(nn.Module):
    """A convolution whose kernel has mean 0 and deviation 1 per output channel; no bias."""

    def __init__(self, spec: ResNetSpec, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.spec = spec
        self.kernel = kernel
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, H / stride, W / stride) of (B, inputs, H, W)."""
        padding = self.kernel // 2
        if self.spec.kind == "v1" and self.stride > 1:
            x = padded_same(x, self.kernel, self.stride, 0.0)
            padding = 0
        return F.conv2d(x, self.standardised().to(x.dtype), None, self.stride, padding)

    def standardised(self) -> Tensor:
        """Return the kernel that is applied, in float32 or better."""
        eps = self.spec.weight_eps
        weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
        var, mean = torch.var_mean(weight, dim=(1, 2, 3), correction=0, keepdim=True)
        in_std = self.spec.weight_eps_in == "std"
        return (weight - mean) / (var.sqrt() + eps if in_std else (var + eps).sqrt())


def padded_same(x: Tensor, kernel: int, stride: int, value: float) -> Tensor:
    """Return x padded as TensorFlow's SAME: the odd pixel goes below and to the right."""
    border: list[int] = []
    for side in (x.shape[3], x.shape[2]):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        border += [total // 2, total - total // 2]
    return F.pad(x, border, value=value)
