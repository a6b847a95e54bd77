"""Balanced gradients: the network they go back through is the network, and their sums are told."""

import pytest
import torch
from networks import STEM, pictures, randomised, tiny

from vitral.explanation import explain
from vitral.explanation.balanced_gradient import _block, _halved, balanced_gradient
from vitral.explanation.request import ExplainRequest
from vitral.model.layers import Block

KINDS = [
    {},
    {"distillation_token": True, "registers": 1},
    {"pool": "mean", "class_token": False, "pool_norm": "after"},
    {"pool": "map", "class_token": False, "positions": "rope2d"},
    {"positions_at": "every", "qk_norm": True},
    {"pool": "cls_mean", "pool_blocks": 2, "layer_scale": 0.1},
    {"resnet": STEM, "patch": (1, 2), "positions": "relative"},
]


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_forward_is_that_of_the_network(changes):
    spec = tiny(depth=2, **changes)
    model, images = randomised(spec), pictures(spec)
    embedded = model.embed(images, any_size=True)
    for number, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        x = torch.randn_like(embedded.tokens) + number
        torch.testing.assert_close(
            _block(block, x, embedded.context), block(x, embedded.context), atol=1e-5, rtol=1e-5
        )
    amounts = balanced_gradient(model, images, torch.tensor([1, 3]))
    assert amounts.shape == embedded.tokens.shape[:2]
    assert amounts.isfinite().all() and amounts.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_half_of_a_product_goes_to_each_factor():
    a, b = (torch.tensor([x], requires_grad=True) for x in (3.0, 5.0))
    (_halved(a) * _halved(b)).sum().backward()
    assert (a.grad, b.grad) == (torch.tensor([2.5]), torch.tensor([1.5]))
    assert float(a.grad * 3 + b.grad * 5) == 15  # gradients times inputs add up to the product


def test_a_class_is_told_from_the_others():
    """What adds to every logit alike is nobody's."""
    spec = tiny(depth=2)
    model, images = randomised(spec), pictures(spec)
    targets = torch.tensor([1, 3])
    before = balanced_gradient(model, images, targets)
    with torch.no_grad():
        model.head.weight += torch.randn(1, model.head.weight.shape[1])
    torch.testing.assert_close(
        balanced_gradient(model, images, targets), before, atol=1e-5, rtol=1e-4
    )


def test_the_fast_way_looks_at_three_passes_at_most():
    spec = tiny(depth=2)
    model, images = randomised(spec), pictures(spec)
    passes = []
    model.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    asked = ExplainRequest(method="gradient", steps=0, details=False)
    found = explain(model, images, None, (), asked)
    assert len(passes) == 1  # and one forward and back of the tokens
    for each in found:
        assert each.method == "gradient" and each.heatmap.shape == spec.grid
        assert each.heatmap.min() >= 0 and each.heatmap.sum() == pytest.approx(1, abs=1e-5)
        assert each.faithfulness is None and each.internals is None
