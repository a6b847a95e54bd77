"""Hidden patches: what is put in their place, whose they are, and how many at a time."""

import pytest
import torch
from networks import pictures, randomised, tiny, tiny_bit

from vitral.explanation import masked_scores
from vitral.explanation.masked_scores import masked_log_probs
from vitral.explanation.request import ExplainRequest
from vitral.specs.task import Task

OWNERS = torch.tensor([0, 2, 2, 1, 0])
TARGETS = torch.tensor([1, 4, 0])


def asked(spec, request=None, masks=None):
    model, images = randomised(spec), pictures(spec, batch=3)
    random = torch.rand(5, *spec.grid, generator=torch.Generator().manual_seed(2))
    shown = random > 0.4 if masks is None else masks
    return model, images, OWNERS, shown, TARGETS, request or ExplainRequest()


@pytest.mark.parametrize("spec", [tiny(), tiny_bit(size=(64, 96))], ids=["ViT", "BiT"])
def test_each_mask_hides_the_patches_of_its_own_image(spec):
    model, images, owners, shown, targets, request = asked(spec)
    found = masked_log_probs(model, images, owners, shown, targets, request)
    tall, wide = spec.stride
    for value, owner, mask in zip(found, owners.tolist(), shown, strict=True):
        image = images[owner].clone()
        for row, column in (~mask).nonzero().tolist():
            part = (slice(row * tall, (row + 1) * tall), slice(column * wide, (column + 1) * wide))
            for channel in range(3):
                image[(channel, *part)] = images[owner, channel].mean()
        expected = model(image[None]).log_softmax(1)[0, targets[owner]].detach()
        assert float(value) == pytest.approx(float(expected), rel=1e-5, abs=1e-5)
    assert not found.requires_grad


def test_all_shown_is_the_image_and_the_probability_is_that_of_the_request():
    everything = torch.ones(5, 2, 3, dtype=torch.bool)
    for request in (
        ExplainRequest(task=Task(temperature=3.0)),
        ExplainRequest(task=Task("multi_label")),
    ):
        model, images, *rest = asked(tiny(), request, everything)
        found = masked_log_probs(model, images, *rest)
        expected = request.task.log_probabilities(model(images).detach())[OWNERS, TARGETS[OWNERS]]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("most", "pixels", "largest"), [(2, 1 << 20, 2), (64, 3 * 32 * 48, 3)])
def test_batches_bound_the_memory_and_change_nothing(monkeypatch, most, pixels, largest):
    words = asked(tiny())
    whole = masked_log_probs(*words)
    monkeypatch.setattr(masked_scores, "_MAX_IMAGES", most)
    monkeypatch.setattr(masked_scores, "_MAX_PIXELS", pixels)
    seen = []
    words[0].register_forward_hook(
        lambda model, inputs, output: seen.append((len(output), torch.is_inference_mode_enabled()))
    )
    torch.testing.assert_close(masked_log_probs(*words), whole)
    assert max(count for count, _ in seen) == largest
    assert all(inference for _, inference in seen)
    monkeypatch.setattr(masked_scores, "_MAX_PIXELS", 1)  # an image larger than that is still one
    torch.testing.assert_close(masked_log_probs(*words), whole)
