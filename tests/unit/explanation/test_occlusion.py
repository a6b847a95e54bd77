"""Occlusion beside a plain loop over patches, its windows, and what it leaves alone."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from explanations import only_one_patch_matters
from networks import STEM, pictures, randomised, tiny, tiny_bit
from torch import nn

from vitral.explanation import ExplainRequest, explain
from vitral.explanation.occlusion import occlusion, windows
from vitral.specs.task import Task

GRIDS = [(8, 8), (9, 7), (14, 14), (16, 16), (37, 37), (1, 1), (1, 64), (5, 30), (40, 2)]
SPECS = {
    "class token": tiny(),
    "mean": tiny(pool="mean", class_token=False),
    "hybrid": tiny(resnet=STEM, patch=(1, 2)),
    "BiT": tiny_bit(),
}


def alike(images: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    return torch.ones(len(images), *grid, dtype=images.dtype)


@pytest.mark.parametrize("grid", GRIDS)
def test_windows_cover_every_patch_exactly_once(grid):
    hidden = windows(grid)
    assert hidden.dtype == torch.bool
    assert hidden.shape[1:] == grid
    assert (hidden.sum(0) == 1).all()
    assert len(hidden) <= 64
    side = 1 if grid[0] * grid[1] <= 64 else -(-max(grid) // 8)
    for window in hidden:
        rows, columns = window.any(1).nonzero()[:, 0], window.any(0).nonzero()[:, 0]
        assert window[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        for places, most in ((rows, grid[0]), (columns, grid[1])):
            assert int(places[0]) % side == 0
            assert len(places) == min(side, most - int(places[0]))


def test_how_many_windows_there_are():
    counts = {(8, 8): 64, (9, 7): 63, (14, 14): 49, (16, 16): 64, (37, 37): 64, (1, 1): 1}
    assert {grid: len(windows(grid)) for grid in counts} == counts


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("task", [Task(temperature=2.0), Task("multi_label")])
def test_it_is_a_plain_loop_over_patches(name, task):
    spec, request = SPECS[name], ExplainRequest(task=task)
    model, images = randomised(spec), pictures(spec, batch=3)
    targets = model(images).argmax(1)
    found = occlusion(model, images, targets, alike(images, spec.grid), request)
    tall, wide = spec.stride
    for image, target, heat in zip(images, targets, found, strict=True):
        whole = request.task.log_probabilities(model(image[None]))[0, target].detach()
        falls = torch.zeros(spec.grid)
        for row in range(spec.grid[0]):
            for column in range(spec.grid[1]):
                hidden = image.clone()
                part = hidden[:, row * tall :, column * wide :][:, :tall, :wide]
                part[:] = image.mean((1, 2), keepdim=True)
                left = request.task.log_probabilities(model(hidden[None]))[0, target]
                falls[row, column] = (whole - left).clamp(min=0)
        assert falls.sum() > 0
        torch.testing.assert_close(heat, falls / falls.sum(), atol=1e-4, rtol=1e-4)
        assert float(heat.sum()) == pytest.approx(1, abs=1e-5)


def test_a_window_is_shared_among_its_patches_as_they_are_relevant():
    spec = tiny(size=(144, 160), patch=(16, 16), positions="sincos2d")  # 9x10: windows of 2x2
    model, images = randomised(spec), pictures(spec, batch=2)
    relevant = torch.rand(2, 9, 10, generator=torch.Generator().manual_seed(3)).double()
    relevant[:, 2:8] = 0  # windows where nothing is relevant are shared equally
    targets = torch.tensor([2, 3])
    found = occlusion(model, images, targets, relevant, ExplainRequest())
    for image, target, weight, heat in zip(images, targets, relevant, found, strict=True):
        whole = model(image[None]).log_softmax(1)[0, target].detach()
        expected = torch.zeros(9, 10, dtype=torch.float64)
        for row in range(0, 9, 2):
            for column in range(0, 10, 2):
                hidden = image.clone()
                part = hidden[:, 16 * row : 16 * row + 32, 16 * column : 16 * column + 32]
                part[:] = image.mean((1, 2), keepdim=True)
                fall = (whole - model(hidden[None]).log_softmax(1)[0, target].detach()).clamp(0)
                share = weight[row : row + 2, column : column + 2]
                even = torch.full_like(share, 1 / share.numel())
                share = share / share.sum() if share.sum() > 0 else even
                expected[row : row + 2, column : column + 2] = fall * share
        torch.testing.assert_close(heat.double(), expected / expected.sum(), atol=1e-4, rtol=1e-4)
        assert expected[2:8].max() > 0 < expected[:2].max()


@pytest.mark.parametrize("changes", [{}, {"pool": "mean", "class_token": False}], ids=str)
@pytest.mark.parametrize("place", [(0, 0), (1, 3), (3, 2)])
def test_the_one_patch_that_matters_is_found(changes, place):
    model = only_one_patch_matters(**changes)
    image = torch.zeros(1, 3, 64, 64)
    row, column = place
    image[..., 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 1
    found = explain(model, image, request=ExplainRequest(target="class 0", details=False))[0]
    assert found.method == "occlusion"
    assert divmod(int(found.heatmap.argmax()), 4) == place
    assert found.heatmap.max() > 0.95
    test = found.faithfulness
    # in random orders the one patch is as likely anywhere, the first place is 1.7 deviations out
    assert min(test.deletion_score, test.insertion_score) > 1.1 * test.random_spread


class Sum(nn.Module):
    """Logit 0 is the sum of the patches' brightness, each weighed; logit 1 is 0."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.tensor(weights)

    def forward(self, images, *, any_size=False):
        assert any_size
        patches = F.avg_pool2d(images.mean(1, keepdim=True), 4).flatten(1)
        logit = patches @ self.weights
        return torch.stack([logit, torch.zeros_like(logit)], dim=1)


def test_what_speaks_against_the_class_has_no_share_and_if_nothing_speaks_for_it_all_are_equal():
    image = torch.zeros(1, 3, 4, 12)
    image[..., 4:] = 1  # of the mean colour 2/3 in place of each third
    targets, relevant = torch.tensor([0]), torch.rand(1, 1, 3)
    found = occlusion(Sum([0.0, 9.0, -9.0]), image, targets, relevant, ExplainRequest())
    assert found.flatten().tolist() == [0, 1, 0]
    against = occlusion(Sum([1.0, -9.0, -9.0]), image, targets, relevant, ExplainRequest())
    assert against.flatten().tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("training", [True, False])
def test_nothing_of_the_model_changes(training):
    model = randomised(tiny(positions="rope2d"), dropout=0.3).float().train(training)
    frozen = model.patches.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    images = pictures(tiny()).float()
    first, again = (explain(model, images, request=ExplainRequest(steps=2)) for _ in range(2))
    np.testing.assert_array_equal(first[1].heatmap, again[1].heatmap)  # no dropout
    assert model.training is training
    assert not frozen.requires_grad and model.head.weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    model(images).sum().backward()  # nothing made in inference mode stayed behind
    assert model.head.weight.grad is not None
