"""Integrated gradients: their sum is the gain of the class, and they take three passes."""

import pytest
import torch
from networks import STEM, pictures, randomised, tiny, tiny_bit
from torch import nn

from vitral.explanation import explain
from vitral.explanation.integrated_gradients import integrated_gradients
from vitral.explanation.request import ExplainRequest


class Quadratic(nn.Module):
    """Class 0 is the square of the left half's mean, class 1 nothing."""

    def forward(self, images, *, any_size=False):
        assert any_size
        left = images[..., : images.shape[3] // 2].mean((1, 2, 3))
        return torch.stack([2 * left.square(), torch.zeros_like(left)], dim=1)


def test_the_amounts_sum_to_the_gain():
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64) + 1
    mean = images.mean((2, 3), keepdim=True).expand_as(images)
    amounts = integrated_gradients(Quadratic(), images, torch.tensor([0, 0, 0]), (4, 2))
    assert amounts.shape == (3, 4, 2)
    gain = (Quadratic()(images, any_size=True) - Quadratic()(mean, any_size=True))[:, 0] / 2
    torch.testing.assert_close(amounts.sum((1, 2)), gain, atol=1e-12, rtol=0)
    assert amounts[:, :, 1].abs().max() < 1e-12  # the right half gives nothing
    against = integrated_gradients(Quadratic(), images, torch.tensor([1, 1, 1]), (4, 2))
    torch.testing.assert_close(against, -amounts)


@pytest.mark.parametrize(
    "spec",
    [tiny(depth=2), tiny(pool="map", class_token=False), tiny(resnet=STEM, patch=(1, 2)),
     tiny_bit(size=(64, 96))],
    ids=["ViT", "MAP", "hybrid", "BiT"],
)  # fmt: skip
def test_the_fast_way_takes_three_passes(spec):
    model, images = randomised(spec), pictures(spec, batch=1)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    asked = ExplainRequest(method="gradient", steps=0, details=False)
    logits = model(images)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    found = explain(model, images, None, (), asked, logits=logits)
    assert len(passes) == 3
    for each in found:
        assert each.method == "gradient" and each.heatmap.shape == each.grid
        assert each.heatmap.min() >= 0 and each.heatmap.sum() == pytest.approx(1, abs=1e-5)
        assert each.faithfulness is None and each.internals is None
