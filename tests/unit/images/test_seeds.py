"""Seeds: every part counts, and nothing outside is touched."""

from __future__ import annotations

import pytest
import torch

from vitral.images.seeds import seed_of, seeded, uniform


def test_every_part_of_a_seed_counts():
    seeds = {seed_of(*parts) for parts in [(0,), (1,), (0, 0), (0, "0"), ("view", 1, 2), (12,)]}
    assert len(seeds) == 6 and all(0 <= seed < 1 << 63 for seed in seeds)
    assert seed_of(0, "view", 1, 2) == 632826727558363477  # a resume years later finds the same


def test_dice_are_even_independent_and_the_same_for_ever():
    many = torch.tensor([uniform(seed, "crop", 4) for seed in range(4000)], dtype=torch.float64)
    assert many.min() >= 0 and many.max() < 1
    assert (many.mean(0) - 0.5).abs().max() < 0.02 and (many.var(0) - 1 / 12).abs().max() < 0.005
    assert (torch.corrcoef(many.T) - torch.eye(4)).abs().max() < 0.06
    assert uniform(3, "crop", 2) == uniform(3, "crop", 5)[:2] != uniform(3, "flip", 2)
    assert uniform(0, "crop", 1) == [0.06702824786756678]


def test_seeded_gives_the_global_numbers_back_even_after_an_error():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    with seeded(5):
        first = torch.rand(3)
    with pytest.raises(KeyError), seeded(5):
        assert torch.equal(torch.rand(3), first)
        raise KeyError
    assert torch.equal(torch.get_rng_state(), state)
