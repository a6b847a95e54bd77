"""Traps 6, 7 and 8 of paper.md: padding, epsilons, and the border of the root's pooling."""

import math
from functools import partial

import pytest
import torch
from networks import BIT, STEM, pictures, randomised, tiny, tiny_bit, tiny_resnet
from torch import nn
from torch.nn import functional as F

from vitral.images.augment import transforms
from vitral.model.resnet import ResNet, StandardisedConv, padded_same
from vitral.specs import ResNetSpec


@pytest.mark.parametrize(
    ("side", "kernel", "before", "after"),
    [(224, 7, 2, 3), (225, 7, 3, 3), (112, 3, 0, 1), (113, 3, 1, 1), (1, 3, 1, 1), (8, 1, 0, 0)],
)
def test_same_padding_puts_the_odd_pixel_last(side, kernel, before, after):
    padded = padded_same(torch.ones(1, 1, side, 2 * side), kernel, 2, 0.0)[0, 0]
    column = padded[:, padded.shape[1] // 2]
    assert len(column) == side + before + after
    assert not column[:before].any() and column[before : before + side].all()
    assert not column[before + side :].any()


def test_same_padding_gives_the_rounded_up_half():
    conv = StandardisedConv(STEM, 3, 32, 7, 2)
    torch.nn.init.normal_(conv.weight)
    for side in range(1, 20):
        assert conv(torch.randn(1, 3, side, side + 1)).shape[2:] == (-(-side // 2), side // 2 + 1)


def test_the_kernel_is_standardised_by_its_own_rule():
    for spec in (STEM, BIT):
        conv = StandardisedConv(spec, 8, 32, 3)
        torch.nn.init.normal_(conv.weight, mean=2, std=1e-4)
        weight = conv.weight.double()
        mean = weight.mean((1, 2, 3), keepdim=True)
        var = ((weight - mean) ** 2).mean((1, 2, 3), keepdim=True)
        std = var.sqrt() + 1e-5 if spec is STEM else (var + 1e-10).sqrt()
        difference = conv.double().standardised() - (weight - mean) / std
        assert difference.abs().max() < 1e-9


def test_a_constant_kernel_stays_finite_and_small():
    for spec in (STEM, BIT):
        conv = StandardisedConv(spec, 8, 32, 3)
        torch.nn.init.constant_(conv.weight, 0.3)
        assert conv.standardised().abs().max() < 0.1


def test_the_epsilons_of_both_families_matter():
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    torch.manual_seed(0)
    network = ResNet(STEM, 3).double()
    for value in network.parameters():
        torch.nn.init.normal_(value, std=1e-3 if value.ndim == 4 else 1.0)
    other = ResNet(ResNetSpec(blocks=(1, 1), width=32, weight_eps_in="var"), 3).double()
    other.load_state_dict(network.state_dict())
    assert (network(x) - other(x)).abs().max() > 1e-6


def test_the_border_of_bits_pool_is_zero_and_big_visions_is_not_there():
    maps = -torch.rand(1, 32, 8, 8, dtype=torch.float64) - 1  # negative everywhere
    pooled = {}
    for border in ("zero", "infinite"):
        spec = ResNetSpec(kind="v2", blocks=(1,), width=32, weight_eps_in="var", root_pool=border)
        network = ResNet(spec, 3)
        network.root, network.norm = torch.nn.Identity(), None
        network.stages = torch.nn.Sequential()
        pooled[border] = network(maps)
    assert pooled["zero"].shape == pooled["infinite"].shape == (1, 32, 4, 4)
    assert (pooled["zero"][..., 0, :] == 0).all() and (pooled["zero"][..., 0] == 0).all()
    assert (pooled["infinite"] < 0).all()
    assert torch.equal(pooled["zero"][..., 1:, 1:], pooled["infinite"][..., 1:, 1:])


def test_the_same_pool_never_sees_its_border():
    network = ResNet(STEM, 3)
    network.root, network.root_norm = torch.nn.Identity(), None
    network.stages = torch.nn.Sequential()
    maps = -torch.rand(1, 32, 8, 6) - 1
    reference = F.max_pool2d(F.pad(maps, (0, 1, 0, 1), value=-math.inf), 3, 2)
    assert torch.equal(network(maps), reference) and (reference < 0).all()


@torch.no_grad()
def test_v1_is_torchvisions_resnet_with_group_norm_and_standardised_kernels():
    """On sides of one more than a power of two TensorFlow's padding is the same on both sides."""
    transforms()  # torchvision imported, also where its compiled part does not fit
    from torchvision.models import resnet

    spec = tiny_resnet(resnet=ResNetSpec(blocks=(2, 1, 1, 1)), width=2048, size=(65, 33))
    network = randomised(spec)
    norm = partial(nn.GroupNorm, 32, eps=1e-6)
    oracle = resnet.ResNet(resnet.Bottleneck, [2, 1, 1, 1], spec.classes, norm_layer=norm).double()
    pairs = [
        (oracle.conv1, network.stem.root),
        (oracle.bn1, network.stem.root_norm),
        (oracle.fc, network.head),
    ]
    stages = (oracle.layer1, oracle.layer2, oracle.layer3, oracle.layer4)
    for theirs, ours in zip(stages, network.stem.stages, strict=True):
        for block, unit in zip(theirs, ours, strict=True):
            pairs += [(getattr(block, f"conv{i}"), getattr(unit, f"conv{i}")) for i in (1, 2, 3)]
            pairs += [(getattr(block, f"bn{i}"), getattr(unit, f"norm{i}")) for i in (1, 2, 3)]
            if block.downsample is not None:
                pairs += zip(block.downsample, (unit.shortcut, unit.shortcut_norm), strict=True)
    for theirs, ours in pairs:
        weight = ours.standardised() if isinstance(ours, StandardisedConv) else ours.weight
        theirs.weight.copy_(weight)
        if theirs.bias is not None:
            theirs.bias.copy_(ours.bias)
    assert len(pairs) == 3 + 5 * 6 + 4 * 2
    images = pictures(spec)
    assert (network(images) - oracle(images)).abs().max() < 1e-10


@pytest.mark.parametrize("spec", [tiny(resnet=STEM, patch=1), tiny_bit()], ids=["v1", "v2"])
@pytest.mark.parametrize("size", [(32, 48), (33, 47), (70, 54)])
def test_maps_have_the_size_that_the_spec_says(spec, size):
    network = randomised(spec)
    maps = network.stem(pictures(tiny(size=size, patch=1)))
    assert maps.shape == (2, spec.resnet.outputs, *spec.resnet.map_size(size))
