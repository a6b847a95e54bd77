"""Deletion and insertion: where the curves begin and end, and what their words mean."""

import numpy as np
import pytest
import torch
from networks import pictures, randomised, tiny
from torch import nn

from vitral.explanation.faithfulness import RANDOM_ORDERS, Faithfulness, faithfulness
from vitral.explanation.request import ExplainRequest
from vitral.specs.task import Task


class Brightness(nn.Module):
    """Says class 0 with a probability of its top left patch: nothing else counts."""

    def forward(self, images, *, any_size=False):
        assert any_size
        bright = images[:, :, :2, :2].mean((1, 2, 3))
        return torch.stack([4 * bright, torch.zeros_like(bright)], dim=1)


def test_the_curves_begin_and_end_where_they_should():
    spec = tiny()
    model, images = randomised(spec), pictures(spec)
    heat = torch.rand(2, *spec.grid, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([1, 3])
    found = faithfulness(model, images, heat, targets, ExplainRequest(steps=4))
    mean = images.mean((2, 3), keepdim=True).expand_as(images)
    whole, none = (model(x).softmax(1)[[0, 1], targets].detach() for x in (images, mean))
    for i, test in enumerate(found):
        assert test.removed.tolist() == pytest.approx([0, 2 / 6, 3 / 6, 4 / 6, 1], abs=1e-6)
        for curve in (test.deletion, test.insertion[::-1], *test.random):
            assert curve[0] == pytest.approx(float(whole[i]), rel=1e-4)
            assert curve[-1] == pytest.approx(float(none[i]), rel=1e-4)
        assert test.random.shape == (RANDOM_ORDERS, 5)


def test_one_step_by_hand():
    spec = tiny()
    model, images = randomised(spec), pictures(spec, batch=1)
    heat = torch.tensor([[[0.1, 0.5, 0.2], [0.05, 0.1, 0.05]]])
    test = faithfulness(model, images, heat, torch.tensor([2]), ExplainRequest(steps=6))[0]
    mean = images.mean((2, 3), keepdim=True)
    removed, shown = images.clone(), mean.expand_as(images).clone()
    removed[..., :16, 16:] = mean  # the second patch and the third
    shown[..., :16, 16:] = images[..., :16, 16:]
    expected = [float(model(x).detach().softmax(1)[0, 2]) for x in (removed, shown)]
    assert [test.deletion[2], test.insertion[2]] == pytest.approx(expected, rel=1e-4)


def test_the_right_order_is_better_the_wrong_one_worse_and_no_order_neither():
    image = torch.zeros(1, 1, 8, 8)
    image[..., :2, :2] = 1
    heat = torch.zeros(1, 4, 4)
    heat[0, 0, 0] = 1
    for values, word in ((heat, "better"), (-heat, "worse")):
        test = faithfulness(Brightness(), image, values, torch.tensor([0]), ExplainRequest())[0]
        for score in (test.deletion_score, test.insertion_score):
            assert test.verdict(score) == f"{word} than random order"
    blank = torch.zeros(1, 1, 8, 8)
    test = faithfulness(Brightness(), blank, heat, torch.tensor([0]), ExplainRequest())[0]
    assert test.verdict(test.deletion_score) == "no better than random order"
    assert "no better than random order" in test.sentence()


def test_areas_and_scores_by_hand():
    test = Faithfulness(
        removed=np.array([0, 0.5, 1], np.float32),
        deletion=np.array([1, 0, 0], np.float32),
        insertion=np.array([0, 1, 1], np.float32),
        random=np.array([[1, 0.5, 0], [1, 0.3, 0], [1, 0.7, 0]], np.float32),
    )
    assert test.random_area == pytest.approx(0.5)
    assert test.random_spread == pytest.approx(0.1)  # areas 0.5, 0.4 and 0.6
    assert test.deletion_score == pytest.approx(0.25)
    assert test.insertion_score == pytest.approx(0.25)
    # Student's t, two degrees of freedom, of one more order: 1.886 · 0.1 · √(1 + 1/3) = 0.2178
    assert test.verdict(0.217) == "no better than random order"
    assert test.verdict(0.219) == "better than random order"
    assert test.verdict(-0.219) == "worse than random order"
    assert test.to_dict()["deletion_score"] == test.deletion_score


def test_multi_labels_watch_their_own_probability():
    image = torch.ones(1, 1, 8, 8)
    asked = ExplainRequest(task=Task("multi_label"), steps=2)
    test = faithfulness(Brightness(), image, torch.rand(1, 4, 4), torch.tensor([1]), asked)[0]
    assert test.deletion.tolist() == [0.5, 0.5, 0.5]  # sigmoid of 0, whatever class 0 says
