"""The lens ends in the logits and begins with the embedding; lengths and angles by hand."""

import pytest
import torch
from networks import STEM, pictures, randomised, tiny

from vitral.explanation.logit_lens import logit_lens, norms_and_cosines


def every_block(model, images):
    return model.features(images, range(model.spec.depth + 1), any_size=True)


KINDS = [
    {},
    {"distillation_token": True, "registers": 1},
    {"pool": "mean", "class_token": False, "pool_norm": "after", "representation": 6},
    {"pool": "map", "class_token": False, "positions": "rope2d"},
    {"positions_at": "every", "qk_norm": True},
    {"pool": "cls_mean", "pool_blocks": 2},
    {"resnet": STEM, "patch": (1, 2), "positions": "relative"},
]


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_the_last_row_is_the_answer(changes):
    spec = tiny(depth=3, **changes)
    model, images = randomised(spec), pictures(spec)
    found = logit_lens(model, every_block(model, images))
    assert found.shape == (2, 4, 5)
    torch.testing.assert_close(found[:, -1], model(images).detach())
    assert not torch.allclose(found[:, 0], found[:, -1])


def test_a_row_is_what_a_shallower_network_answers():
    spec = tiny(depth=3)
    model, images = randomised(spec), pictures(spec)
    found = logit_lens(model, every_block(model, images))
    for depth in (2, 1, 0):
        del model.blocks[depth]
        model.spec = tiny(depth=max(depth, 1))
        torch.testing.assert_close(found[:, depth], model(images).detach())


def test_lengths_and_angles_by_hand():
    spec = tiny(registers=1)
    model, images = randomised(spec), pictures(spec)
    norms, cosines = norms_and_cosines(model, every_block(model, images), 2)
    assert norms.shape == (2, 3, 2, 4, spec.tokens)
    q, k, v = model.queries_keys_values(images, 0)
    for part, found in zip((q, k, v), norms[:, :, 0].unbind(1), strict=True):
        torch.testing.assert_close(found, (part**2).sum(-1).sqrt())
    q, k, _ = model.queries_keys_values(images, 1)
    one = sum(torch.cosine_similarity(q[0, h, 4], k[0, h, 6], dim=0) for h in range(4)) / 4
    torch.testing.assert_close(cosines[0, 2, 4], one)
    assert cosines.shape == (2, 6, 6)
