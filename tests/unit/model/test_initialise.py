"""Every first value as in the authors' code: traps 3, 4, 5 and 7 of paper.md, and the NaN test."""

import math

import pytest
import torch
from networks import STEM, pictures, tiny, tiny_bit

from vitral.catalog import model
from vitral.model import build
from vitral.model.initialise import initialise
from vitral.specs import ResNetSpec

WIDE = tiny(width=256, heads=4, mlp_width=512, depth=1, positions="learned2d", registers=2)
EVERYTHING = [
    WIDE,
    tiny(layer_scale=1e-5, qk_norm=True, representation=8, distillation_token=False),
    tiny(distillation_token=True, positions_at="every"),
    tiny(pool="map", class_token=False, positions="relative", biases="none"),
    tiny(resnet=STEM, patch=1),
    tiny_bit(),
]


@pytest.mark.parametrize("spec", EVERYTHING, ids=range(len(EVERYTHING)))
def test_nothing_keeps_the_nan_it_held_before(spec):
    with torch.device("meta"):
        network = build(spec)
    assert all(value.is_meta for value in network.parameters())
    network.to_empty(device="cpu")
    with torch.no_grad():
        for value in network.parameters():
            value.fill_(math.nan)
    initialise(network)
    for name, value in network.named_parameters():
        assert value.isfinite().all(), name
    assert not list(network.buffers())  # so to_empty leaves nothing else undefined


@pytest.mark.parametrize("spec", EVERYTHING, ids=range(len(EVERYTHING)))
@pytest.mark.parametrize("bias", [0.0, -6.9])
def test_the_first_logits_are_exactly_the_head_bias(spec, bias):
    network = build(spec)
    initialise(network, head_bias=bias)
    logits = network(pictures(spec).float())
    assert (logits == torch.tensor(bias)).all()
    if bias == 0:
        loss = torch.nn.functional.cross_entropy(logits, torch.zeros(2, dtype=torch.long))
        assert loss.item() == pytest.approx(math.log(spec.classes))


def test_a_generator_decides_and_the_global_seed_does_otherwise():
    network = build(WIDE)

    def values(generator):
        initialise(network, generator=generator)
        return torch.cat([value.flatten() for value in network.parameters()]).clone()

    assert torch.equal(
        values(torch.Generator().manual_seed(1)), values(torch.Generator().manual_seed(1))
    )
    assert not torch.equal(
        values(torch.Generator().manual_seed(1)), values(torch.Generator().manual_seed(2))
    )
    torch.manual_seed(3)
    first = build(WIDE).state_dict()
    torch.manual_seed(3)
    assert all(torch.equal(first[name], value) for name, value in build(WIDE).state_dict().items())


def test_attention_is_xavier_of_each_projection():
    torch.manual_seed(0)
    attention = build(WIDE).blocks[0].attention
    bound = math.sqrt(3 / 256)
    for projection in (*attention.qkv.weight.chunk(3), attention.out.weight):
        assert 0.98 * bound < projection.abs().max() <= bound
        assert projection.std().item() == pytest.approx(1 / math.sqrt(256), rel=0.02)
    assert not attention.qkv.bias.any() and not attention.out.bias.any()


def test_head_width_beside_the_width_keeps_each_projection_xavier():
    attention = build(tiny(width=256, head_width=16)).blocks[0].attention  # inner width 64
    bound = math.sqrt(6 / (256 + 64))
    assert 0.98 * bound < attention.qkv.weight.abs().max() <= bound


def test_mlp_and_tokens():
    torch.manual_seed(0)
    network = build(WIDE)
    mlp, bound = network.blocks[0].mlp, math.sqrt(6 / (256 + 512))
    for layer in (mlp.fc1, mlp.fc2):
        assert 0.98 * bound < layer.weight.abs().max() <= bound
        assert layer.bias.std().item() == pytest.approx(1e-6, rel=0.2)
    assert not network.cls.any() and not network.patches.bias.any()
    assert network.positions.prefix.std().item() == pytest.approx(0.02, rel=0.2)
    assert network.registers.std().item() == pytest.approx(1e-6, rel=0.2)
    assert (network.norm.weight == 1).all() and not network.norm.bias.any()


def test_positions_layer_scale_and_probe():
    torch.manual_seed(0)
    network = build(model("Ti/16", layer_scale=1e-4, pool="map"))
    assert network.positions.table.std().item() == pytest.approx(0.02, rel=0.02)
    assert (network.blocks[3].scale1 == 1e-4).all() and (network.blocks[3].scale2 == 1e-4).all()
    bound = math.sqrt(6 / 193)
    assert 0.95 * bound < network.pool.probe.abs().max() <= bound


@pytest.mark.parametrize("name", ["patches", "pre_logits"])
def test_lecun_normal_is_cut_and_corrected(name):
    torch.manual_seed(0)
    weight = getattr(build(model("B/16", depth=1, representation=768)), name).weight
    expected = math.sqrt(1 / weight[0].numel())
    assert weight.std().item() == pytest.approx(expected, rel=0.01)
    assert 2.25 * expected < weight.abs().max() < 2.28 * expected


def test_the_units_of_a_hybrids_stem_start_as_their_shortcut():
    stem = build(tiny(resnet=ResNetSpec(blocks=(3,), width=32), patch=1)).stem
    unit = stem.stages[0][1]
    x = torch.randn(2, 128, 4, 6)
    assert torch.equal(unit(x), x.relu()) and not unit.norm3.weight.any()
    assert (unit.norm1.weight == 1).all()
    assert (build(tiny_bit()).stem.stages[0][0].norm3.weight == 1).all()
