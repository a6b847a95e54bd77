import pytest
import torch

from vitral.errors import WeightsError
from vitral.weights.axes import AXES, to_ours, to_theirs

HEADS = 3
THEIRS = {  # no two sides alike, so that no two axes can be taken for each other
    "linear": (4, 6),
    "conv": (2, 5, 3, 7),
    "conv1x1": (1, 1, 4, 6),
    "pointwise": (6, 4, 1, 1),
    "heads_in": (4, HEADS, 2),
    "heads": (HEADS, 2),
    "heads_out": (HEADS, 2, 5),
    "channels": (1, 1, 1, 6),
}
OURS = {
    "linear": (6, 4),
    "conv": (7, 3, 2, 5),
    "conv1x1": (6, 4),
    "pointwise": (6, 4),
    "heads_in": (6, 4),
    "heads": (6,),
    "heads_out": (5, 6),
    "channels": (6,),
}


def numbered(shape):
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)


@pytest.mark.parametrize("move", AXES)
def test_there_and_back(move):
    theirs = numbered(THEIRS[move])
    ours = to_ours(move, theirs, "x")
    assert ours.shape == OURS[move]
    assert torch.equal(to_theirs(move, ours, HEADS, wide=True), theirs)


def test_channels_may_be_narrow():
    narrow = numbered((6,))
    assert torch.equal(to_ours("channels", narrow, "x"), narrow)
    assert torch.equal(to_theirs("channels", narrow, HEADS, wide=False), narrow)


def test_no_move():
    x = numbered((2, 3))
    assert to_ours("", x, "x") is x
    assert to_theirs("", x, HEADS, wide=True) is x


def test_heads_of_a_projection_are_its_rows():
    """y[h, d] = sum of kernel[in, h, d] x[in], as flax has it, is row h * width + d of ours."""
    kernel, x = numbered((4, HEADS, 2)), numbered((4,))
    assert torch.equal(
        (to_ours("heads_in", kernel, "x") @ x).view(HEADS, 2),
        torch.einsum("ihd,i->hd", kernel, x),
    )
    out, inner = numbered((HEADS, 2, 5)), numbered((HEADS, 2))
    assert torch.equal(
        to_ours("heads_out", out, "x") @ inner.flatten(), torch.einsum("hdo,hd->o", out, inner)
    )


@pytest.mark.parametrize("move", AXES)
def test_another_number_of_axes_is_a_sentence(move):
    with pytest.raises(WeightsError, match=r"'head/kernel' has shape \(1, 1, 1, 1, 1\); one of"):
        to_ours(move, torch.ones(1, 1, 1, 1, 1), "head/kernel")
