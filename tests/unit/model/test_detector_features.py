"""The detector_features that foreign images are told by, of networks of every build."""

import pytest
import torch

from vitral import catalog
from vitral.model import build


@pytest.mark.parametrize(
    "name", ["mu/16", "R+Ti/16", "BiT-R26x1", "deit_tiny_distilled_patch16_224"]
)
def test_they_are_what_the_head_reads_and_statistics_of_the_patches(name: str) -> None:
    spec = catalog.model(name, size=64, classes=3)
    model = build(spec).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits, detector_features = model.logits_and_detector_features(images)
        assert torch.equal(logits, model(images))
        assert torch.equal(detector_features[:, : spec.read_width], model.representation(images))
        assert detector_features.shape == (2, spec.read_width + 6 * spec.width)
        late = round(0.75 * spec.depth)
        entered = model.features(images, [late, spec.depth]).per_block
        first = model.embed(images, any_size=False).tokens
    expected = []
    for tokens, scale in ((first, torch.clone), *((x, torch.log) for x in entered.values())):
        deviation, mean = torch.std_mean(tokens[:, spec.prefix :], dim=1, correction=0)
        expected += [mean, scale(deviation + (1e-6 if scale is torch.log else 0))]
    if len(entered) == 1:  # a ResNet has no blocks
        expected += expected[2:]
    patches = torch.cat(expected, dim=1)
    assert torch.allclose(detector_features[:, spec.read_width :], patches, atol=1e-4)
