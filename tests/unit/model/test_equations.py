"""The readable equations against the fast network, in float64."""

import pytest
import torch
from networks import pictures, randomised, tiny

from vitral.errors import ModelError
from vitral.model import equations

COVERED = [
    tiny(),
    tiny(gelu="erf", norm_eps=1e-3, head_width=6),
    tiny(patch=(8, 16), channels=1, heads=2, mlp_width=7),
    tiny(patch=(32, 48)),
    tiny(positions="none", biases="none"),
    tiny(prefix_positions=False, registers=3, biases="no_qkv"),
    tiny(registers=1, layer_scale=0.1, representation=9),
    tiny(registers=2, register_positions=True),
    tiny(pool="mean", class_token=False, registers=3, register_positions=True),
    tiny(pool="mean", class_token=False),
    tiny(pool="mean", pool_norm="after", registers=2, classes=0),
    tiny(depth=5, heads=1, width=12, classes=1),
]


@pytest.mark.parametrize("spec", COVERED, ids=range(len(COVERED)))
def test_the_equations_are_the_network(spec):
    network, images = randomised(spec), pictures(spec)
    with torch.no_grad():
        expected = equations.logits(spec, network.state_dict(), images)
        logits = network(images)
    assert logits.std() > 0.01
    assert (logits - expected).abs().max() < 1e-12


def test_both_patch_embeddings_are_one():
    spec = tiny(patch=(8, 16), channels=5)
    weights, images = randomised(spec).state_dict(), pictures(spec)
    cut = equations.x_p(spec, images)
    assert torch.equal(cut[0, 4].reshape(8, 16, 5), images[0, :, 8:16, 16:32].permute(1, 2, 0))
    E = weights["patches.weight"].permute(2, 3, 1, 0).reshape(-1, spec.width)
    by_convolution = equations.x_p_E_by_convolution(spec, weights, images)
    assert (cut @ E + weights["patches.bias"] - by_convolution).abs().max() < 1e-12


@pytest.mark.parametrize(
    "spec",
    [
        tiny(positions="rope2d"),
        tiny(positions_at="every"),
        tiny(qk_norm=True),
        tiny(distillation_token=True),
        tiny(pool="map", class_token=False),
    ],
    ids=lambda spec: f"{spec.positions}-{spec.pool}",
)
def test_what_the_equations_do_not_cover_is_said(spec):
    with pytest.raises(ModelError, match="do not cover"):
        equations.logits(spec, {}, pictures(spec))
