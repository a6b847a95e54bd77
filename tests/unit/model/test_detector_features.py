"""The detector_features that foreign images are told by, of networks of every build."""

import pytest
import torch

from vitral import catalog
from vitral.model import build


@pytest.mark.parametrize(
    "name", ["mu/16", "R+Ti/16", "BiT-R26x1", "deit_tiny_distilled_patch16_224"]
)
def test_signs_are_what_the_head_reads_and_the_first_tokens(name: str) -> None:
    spec = catalog.model(name, size=64, classes=3)
    model = build(spec).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits, detector_features = model.logits_and_detector_features(images)
        assert torch.equal(logits, model(images))
        assert torch.equal(detector_features[:, : spec.read_width], model.representation(images))
        assert detector_features.shape == (2, spec.read_width + spec.width)
        first = model._embed(images, any_size=False).tokens[:, spec.prefix :].mean(1)
    assert torch.allclose(detector_features[:, spec.read_width :], first, atol=1e-5)
