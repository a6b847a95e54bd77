"""Relevance against a forward written by hand, its equations step by step, and an oracle."""

import numpy as np
import pytest
import torch
from explanations import only_one_patch_matters
from networks import STEM, pictures, randomised, tiny

from vitral.explanation import ExplainRequest, explain
from vitral.explanation.attention import readout
from vitral.explanation.relevance import relevance
from vitral.model import ViT, equations

REQUEST = ExplainRequest(method="relevance", target="class 0", details=False)
ENDS = [
    {},
    {"distillation_token": True},
    {"registers": 2, "positions": "rope2d", "qk_norm": True},
    {"pool": "mean", "class_token": False},
    {"pool": "mean", "pool_norm": "after"},
    {"pool": "map", "class_token": False, "positions": "relative"},
    {"pool": "mean_all", "registers": 1},
    {"resnet": STEM, "patch": (1, 2)},
]


def by_the_book(model: ViT, images: torch.Tensor, target: int) -> torch.Tensor:
    """Whole matrices, one image at a time: R <- R + A_bar R from the first, rows of A_bar even."""
    rows = []
    for image in images[:, None]:
        logits, weights = model.forward_with_attention(image)
        slopes = torch.autograd.grad(logits[0, target], weights)
        bars = [(s * w).clamp(min=0).mean(1)[0] for s, w in zip(slopes, weights, strict=True)]
        sums = [bar.sum(-1, keepdim=True) for bar in bars]
        bars = [bar / torch.where(each > 0, each, 1) for bar, each in zip(bars, sums, strict=True)]
        relevant = torch.eye(bars[0].shape[-1], dtype=images.dtype)
        for bar in bars[: model.spec.depth]:
            relevant = relevant + bar @ relevant
        if len(bars) > model.spec.depth:
            first = bars[-1] if bars[-1].sum() > 0 else weights[-1].detach().mean(1)[0]
            rows.append((first @ relevant)[0])
        else:
            outputs = 1 + model.spec.distillation_token
            rows.append(relevant[:outputs].mean(0))
    return torch.stack(rows)


@pytest.mark.parametrize("changes", ENDS, ids=str)
def test_rows_carried_backwards_are_the_matrices_of_the_paper(changes):
    spec = tiny(**changes)
    model, images = randomised(spec), pictures(spec, batch=3)
    logits, weights = model.forward_with_attention(images.requires_grad_())
    targets = torch.full((3,), 2)
    read = readout(spec, spec.grid, weights, None)
    torch.testing.assert_close(read.sum(1), torch.ones(3, dtype=read.dtype))
    found = relevance(spec, logits, weights, targets, read)
    torch.testing.assert_close(found, by_the_book(model, images.detach(), 2))
    logits, weights = model.forward_with_attention(images)
    steep = relevance(spec, 1000 * logits, weights, targets, read)
    torch.testing.assert_close(steep, found)  # however steep the logit, each row counts alike
    assert not found.requires_grad


def of_the_answer(model: ViT, images: torch.Tensor) -> torch.Tensor:
    logits, weights = model.forward_with_attention(images)
    read = readout(model.spec, model.spec.grid, weights, None)
    return relevance(model.spec, logits, weights, logits.argmax(1), read)


@pytest.mark.parametrize(
    ("read", "alone"),
    [
        (0, {"pool": "cls", "depth": 2}),  # the class token before the last block
        (1, {"pool": "cls"}),
        (2, {"pool": "mean"}),
    ],
)
def test_of_several_vectors_only_those_count_that_the_head_makes_something_of(read, alone):
    """A head that is deaf to all but one vector is explained as one that reads that vector."""
    spec = tiny(pool="cls_mean", pool_blocks=2, depth=3)
    model, images = randomised(spec), pictures(spec, batch=3)
    heard = model.head.weight.unflatten(1, (3, spec.width))[:, read].clone()
    with torch.no_grad():
        model.head.weight.zero_().unflatten(1, (3, spec.width))[:, read] = heard
        model.head.bias.zero_()
    lonely = randomised(tiny(**({"depth": 3} | alone)))
    weights = {key: model.state_dict()[key] for key in lonely.state_dict()}
    lonely.load_state_dict(weights | {"head.weight": heard})
    logits = lonely(images)
    torch.testing.assert_close(model(images), logits)
    assert (logits.amax(1) > 0).all()  # or nothing spoke for the class
    torch.testing.assert_close(of_the_answer(model, images), of_the_answer(lonely, images))


def test_the_gradient_is_that_of_the_equations():
    """∂logit / ∂A of the paper's own lines, with a disturbance of A to differentiate by."""
    spec = tiny(depth=1)
    model, images = randomised(spec), pictures(spec, batch=1)
    _, weights = model.forward_with_attention(images)
    slope = torch.autograd.grad(
        model.forward_with_attention(images)[0][0, 1], weights[0], allow_unused=True
    )[0]
    assert slope is None  # of another graph: the weights belong to their own forward
    logits, weights = model.forward_with_attention(images)
    slope = torch.autograd.grad(logits[0, 1], weights[0])[0]
    w = dict(model.state_dict())
    a = weights[0].detach().requires_grad_()
    z = equations.z_0(spec, w, images)
    normed = torch.nn.functional.layer_norm(
        z, (spec.width,), w["blocks.0.norm1.weight"], w["blocks.0.norm1.bias"], spec.norm_eps
    )
    qkv = normed @ w["blocks.0.attention.qkv.weight"].T + w["blocks.0.attention.qkv.bias"]
    v = qkv.chunk(3, dim=-1)[2].unflatten(2, (spec.heads, -1)).transpose(1, 2)
    mixed = (a @ v).transpose(1, 2).flatten(2)
    out = mixed @ w["blocks.0.attention.out.weight"].T + w["blocks.0.attention.out.bias"]
    z = equations.mlp(spec, w, "blocks.0.", equations.LN(spec, w, "blocks.0.norm2", z + out)) + (
        z + out
    )
    answer = equations.dense(w, "head", equations.LN(spec, w, "norm", z[:, 0]))
    torch.testing.assert_close(answer, logits)
    torch.testing.assert_close(slope, torch.autograd.grad(answer[0, 1], a)[0])


@pytest.mark.parametrize("changes", [{}, {"pool": "mean", "class_token": False}], ids=str)
@pytest.mark.parametrize("place", [(0, 0), (1, 3), (3, 2)])
def test_the_one_patch_that_matters_is_found(changes, place):
    model = only_one_patch_matters(**changes)
    image = torch.zeros(1, 3, 64, 64)
    row, column = place
    image[..., 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 1
    found = explain(model, image, request=REQUEST)[0]
    assert found.method == "relevance"
    assert divmod(int(found.heatmap.argmax()), 4) == place
    assert found.heatmap.max() > 2 * np.sort(found.heatmap, axis=None)[-2]
    test = found.faithfulness
    # in random orders the one patch is as likely anywhere, the first place is 1.7 deviations out
    assert min(test.deletion_score, test.insertion_score) > 1.1 * test.random_spread
