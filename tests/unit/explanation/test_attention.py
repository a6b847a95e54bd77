"""Rollout, attention distance and maps: the paper's anchors and their invariants."""

import pytest
import torch
from networks import tiny

from vitral.errors import ModelError, UsageError
from vitral.explanation.attention import (
    attention_distance,
    normalised_map,
    patches_only,
    readout,
    rollout,
    to_patches,
)


def attention(blocks=4, batch=2, heads=3, tokens=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, heads, tokens, tokens)
    return [(3 * torch.randn(shape, generator=generator)).softmax(-1) for _ in range(blocks)]


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("blocks", [1, 24])
def test_rollout_rows_sum_to_one(residual, blocks):
    result = rollout(attention(blocks), residual=residual)
    assert result.shape == (2, 10, 10)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.sum(-1), torch.ones(2, 10), atol=1e-5, rtol=0)
    assert (result >= 0).all()


def test_rollout_is_the_product_with_the_last_block_on_the_left():
    weights = attention(3)
    means = [block.double().mean(1) for block in weights]
    plain = means[2] @ means[1] @ means[0]
    half = [0.5 * mean + 0.5 * torch.eye(10) for mean in means]
    torch.testing.assert_close(rollout(weights, residual=False), plain.float())
    torch.testing.assert_close(rollout(weights), (half[2] @ half[1] @ half[0]).float())


def test_rollout_of_identity_is_identity_and_bfloat16_is_welcome():
    eye = torch.eye(6).expand(1, 2, 6, 6)
    torch.testing.assert_close(rollout([eye, eye]), torch.eye(6)[None])
    low = rollout([block.bfloat16() for block in attention(12)])
    torch.testing.assert_close(low.sum(-1), torch.ones(2, 10), atol=1e-5, rtol=0)


def test_rollout_refuses_what_it_cannot_multiply():
    with pytest.raises(ModelError, match="no attention"):
        rollout([])
    with pytest.raises(UsageError, match="one \\(B, heads, N, N\\) per block"):
        rollout([torch.ones(1, 2, 4, 4), torch.ones(1, 2, 5, 5)])
    with pytest.raises(UsageError):
        rollout([torch.ones(1, 4, 4)])


@pytest.mark.parametrize(
    ("grid", "patch", "pixels"),
    [((14, 14), 16, 116.49), ((7, 7), 32, 115.50), ((24, 24), 16, 200.05), ((8, 8), 4, 16.55)],
)
def test_uniform_attention_has_the_distance_of_the_paper(grid, patch, pixels):
    count = grid[0] * grid[1]
    uniform = torch.full((2, 3, count, count), 1 / count)
    distance = attention_distance(uniform, grid, patch)
    assert distance.shape == (3,)
    assert distance.tolist() == pytest.approx([pixels] * 3, abs=0.005)


def test_attention_distance_anchors_by_hand():
    eye = torch.eye(6).expand(1, 1, 6, 6)
    assert attention_distance(eye, (2, 3), 16).tolist() == [0.0]
    right = torch.zeros(1, 2, 6, 6)
    right[0, 0, range(6), [1, 2, 1, 4, 5, 4]] = 1  # one patch along the row
    right[0, 1, range(6), [3, 4, 5, 0, 1, 2]] = 1  # one patch along the column
    assert attention_distance(right, (2, 3), 16).tolist() == [16.0, 16.0]
    with pytest.raises(UsageError, match="patches_only"):
        attention_distance(torch.ones(1, 1, 7, 7), (2, 3), 16)


def test_patches_only_spreads_the_share_of_the_prefix():
    weights = attention(1, tokens=11)[0]
    kept = patches_only(weights, 2)
    assert kept.shape == (2, 3, 9, 9)
    torch.testing.assert_close(kept.sum(-1), torch.ones(2, 3, 9))
    torch.testing.assert_close(
        kept[0, 0, 0, 1] / kept[0, 0, 0, 0], weights[0, 0, 2, 3] / weights[0, 0, 2, 2]
    )
    only_prefix = torch.zeros(1, 1, 3, 3)
    only_prefix[..., 0] = 1
    assert patches_only(only_prefix, 1).isfinite().all()


def test_the_readout_is_what_the_head_reads_or_the_token_that_is_asked():
    grid, weights = (2, 3), attention(2, tokens=9)
    plain = tiny(registers=2)
    assert readout(plain, grid, weights, None)[0].tolist() == [1, *[0] * 8]
    assert readout(plain, grid, weights, "cls")[1].tolist() == [1, *[0] * 8]
    assert readout(plain, grid, weights, (2, 1))[0].argmax() == 3 + 3
    both = tiny(registers=1, distillation_token=True)
    assert readout(both, grid, weights, None)[0].tolist() == [0.5, 0.5, *[0] * 7]
    probe = torch.rand(2, 4, 1, 9).softmax(-1)
    mapped = tiny(pool="map", class_token=False, registers=3)
    torch.testing.assert_close(readout(mapped, grid, [*weights, probe], None), probe.mean(1)[:, 0])


def test_the_map_is_the_row_of_the_token_that_is_read():
    weights = attention(1, tokens=9)[0]
    read = torch.zeros(2, 9)
    read[:, 4] = 1
    heat = to_patches(weights, read, (2, 3), 3)
    row = weights[:, :, 4, 3:]
    torch.testing.assert_close(heat.flatten(2), row / row.sum(-1, keepdim=True))
    torch.testing.assert_close(
        normalised_map(torch.zeros(1, 9), (2, 3), 3), torch.full((1, 2, 3), 1 / 6)
    )
