"""What torch.compile and torch.export make of the network; seconds for each kind of it."""

import pytest
import torch
from networks import STEM, pictures, randomised, tiny, tiny_bit, tiny_resnet

COMPILED = [
    tiny(),
    tiny(positions="rope2d", registers=1, pool="mean", class_token=False),
    tiny(positions="relative", layer_scale=0.5, qk_norm=True),
    tiny(positions="learned2d", positions_at="every", pool="map", distillation_token=False),
    tiny(resnet=STEM, patch=1, positions="sincos2d", positions_at="shared"),
    tiny_bit(),
    tiny_resnet(),
]


@pytest.mark.parametrize("spec", COMPILED, ids=range(len(COMPILED)))
def test_one_graph_without_a_break(spec):
    torch.compiler.reset()
    network, images = randomised(spec), pictures(spec)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert (compiled(images) - network(images)).abs().max() < 1e-12
    if spec.positions in ("rope2d", "relative"):
        looking = torch.compile(network.attention_weights, backend="eager", fullgraph=True)
        for ours, theirs in zip(looking(images), network.attention_weights(images), strict=True):
            assert (ours - theirs).abs().max() < 1e-12
    network.train()
    compiled(images).sum().backward()


@pytest.mark.parametrize("spec", COMPILED, ids=range(len(COMPILED)))
def test_export_with_a_dynamic_batch(spec):
    network, images = randomised(spec), pictures(spec, batch=3)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(network, (images,), dynamic_shapes={"images": {0: batch}})
    more = pictures(spec, batch=5, seed=9)
    assert (exported.module()(more) - network(more)).abs().max() < 1e-12
