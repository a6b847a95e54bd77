import pytest
import torch

from vitral.errors import WeightsError
from vitral.weights.axes import AXES, Shape, is_wide, to_ours, to_theirs

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
    "tokens": (1, 5, 4),
    "patch": (5, 2 * 4 * 3),
    "patch_values": (2 * 4 * 3,),
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
    "tokens": (1, 5, 4),
    "patch": (5, 3, 2, 4),
    "patch_values": (3 * 2 * 4,),
}


def numbered(shape):
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)


@pytest.mark.parametrize("move", AXES)
def test_there_and_back(move):
    theirs = numbered(THEIRS[move])
    ours = to_ours(move, theirs, "x", Shape(HEADS, 3, (2, 4)))
    assert ours.shape == OURS[move]
    assert torch.equal(to_theirs(move, ours, Shape(HEADS, 3, (2, 4), wide=True)), theirs)


def test_channels_may_be_narrow():
    narrow = numbered((6,))
    assert torch.equal(to_ours("channels", narrow, "x"), narrow)
    assert torch.equal(to_theirs("channels", narrow, Shape(HEADS)), narrow)


def test_no_move():
    x = numbered((2, 3))
    assert to_ours("", x, "x") is x
    assert to_theirs("", x, Shape(HEADS, 3, (2, 4), wide=True)) is x


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


def test_tokens_may_have_no_leading_axis():
    bare = numbered((5, 4))
    assert to_ours("tokens", bare, "x").shape == (1, 5, 4)
    assert torch.equal(to_theirs("tokens", bare[None], Shape()), bare)
    assert is_wide("tokens", bare[None]) and not is_wide("tokens", bare)
    assert not is_wide("", bare) and not is_wide("linear", bare)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_flat_patch_is_in_raster_order_with_the_channels_of_a_pixel_together(channels):
    """The linear map of the flattened patch is the convolution with our kernel."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, channels, 8, 8, generator=generator)
    weight = torch.randn(5, 16 * channels, generator=generator)
    norm = torch.randn(16 * channels, generator=generator)
    rows = images.unflatten(3, (2, 4)).unflatten(2, (2, 4))  # b c h p w q
    flat = rows.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    theirs = (flat * norm) @ weight.T
    ours = to_ours("patch", weight, "x")
    scaled = ours * to_ours("patch_values", norm, "x").view(channels, 4, 4)
    maps = torch.nn.functional.conv2d(images, scaled, stride=4)
    assert (theirs.mT.unflatten(2, (2, 2)) - maps).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("shape", "values", "found"),
    [
        (Shape(), 48, (4, 4, 3)),
        (Shape(), 49, (7, 7, 1)),
        (Shape(channels=4), 64, (4, 4, 4)),
        (Shape(patch=(2, 8)), 48, (2, 8, 3)),
        (Shape(patch=(2, 8)), 16, (2, 8, 1)),
    ],
)
def test_the_sides_of_a_flat_patch(shape, values, found):
    assert shape.of_patch(values) == found


@pytest.mark.parametrize(("shape", "values"), [(Shape(), 50), (Shape(patch=(2, 8)), 50)])
def test_sides_that_no_number_of_values_tells(shape, values):
    with pytest.raises(WeightsError, match=r"50 values of a patch .* --set model\.patch="):
        shape.of_patch(values)


def test_three_squares_are_never_a_square():
    """So that the channels are no guess between two."""
    squares = {n * n for n in range(1, 300)}
    assert not squares & {3 * n for n in squares}
