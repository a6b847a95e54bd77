"""Token merging: what the recordings of the authors' code do not show (tests/parity)."""

from dataclasses import replace

import pytest
import torch

from vitral import catalog
from vitral.errors import UsageError
from vitral.model import ViT, build
from vitral.model.merging import Merging, match
from vitral.specs.merging import merge_counts, tokens_per_block


def drawn(name: str = "mu/16", **changes: object) -> ViT:
    torch.manual_seed(0)
    spec = replace(catalog.model(name, size=64, classes=3), depth=3, **changes)  # type: ignore[arg-type]
    model = build(spec)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def test_no_merging_is_the_network_itself() -> None:
    model = drawn()
    images = torch.randn(2, 3, 64, 64)
    assert model.merged(()).merge == ()
    assert torch.equal(model.merged(())(images), model(images))
    assert model.merged((0,) * model.spec.depth)(images).equal(model(images))


def test_merged_networks_share_weights_and_leave_the_first_alone() -> None:
    model = drawn()
    merged = model.merged(merge_counts("2", model.spec))
    assert model.merge == () and merged.head is model.head
    images = torch.randn(2, 3, 64, 64)
    assert not torch.equal(merged(images), model(images))
    # whoever looks inside, or learns, sees every token
    assert torch.equal(merged.features(images).patches, model.features(images).patches)
    assert merged.forward_with_attention(images)[1][-1].shape == (2, model.spec.heads, 17, 17)
    assert torch.equal(merged.train()(images), model.train()(images))


def test_an_image_merges_alike_in_any_batch() -> None:
    model = drawn().double()
    merged = model.merged(merge_counts("2", model.spec))
    images = torch.randn(5, 3, 64, 64, dtype=torch.float64)
    images[3] = images[1]
    together = merged(images)
    order = torch.tensor([4, 2, 0, 3, 1])
    torch.testing.assert_close(merged(images[order]), together[order], rtol=0, atol=1e-12)
    torch.testing.assert_close(together[3], together[1], rtol=0, atol=1e-12)
    flat = torch.zeros(1, 3, 64, 64, dtype=torch.float64)  # whose patches are as similar as can be
    torch.testing.assert_close(merged(flat.repeat(3, 1, 1, 1))[2:], merged(flat))


@pytest.mark.parametrize("prefix", [0, 1, 2, 5])
def test_the_prefix_stays_and_nothing_is_lost(prefix: int) -> None:
    torch.manual_seed(0)
    merging = Merging((4, 0, 3), prefix)
    tokens = prefix + 16
    x = torch.randn(2, tokens, 8, dtype=torch.float64)
    first = x
    for _ in range(3):
        x = merging.merge(x, torch.randn(2, 3, x.shape[1], 4, dtype=torch.float64))
        sizes = merging.sizes[-1]
        assert sizes is not None
        assert sizes.sum(1).eq(tokens).all()
        assert torch.equal(x[:, :prefix], first[:, :prefix])
        torch.testing.assert_close((x * sizes).sum(1), first.sum(1))
    assert x.shape[1] == tokens - 7
    bias = merging.key_bias()
    assert bias is not None and bias.shape == (2, 1, 1, tokens - 7)


def test_keys_of_zeros_are_no_trouble() -> None:
    matching = match(torch.zeros(1, 9, 4), 3, 1)
    assert matching.merged.tolist() == [[1, 2, 3]]  # the first of those that are as similar


@pytest.mark.parametrize(
    "changes",
    [
        {"pool": "mean", "class_token": False},
        {"pool": "mean", "pool_norm": "after", "class_token": False},
        {"pool": "map", "class_token": False},
        {"registers": 3},
    ],
)
def test_a_pool_counts_merged_tokens_as_what_they_stand_for(changes: dict[str, object]) -> None:
    """Patches that are all alike change nothing by merging: every mean is what it was."""
    model = drawn(positions="none", **changes).double()
    flat = torch.full((1, 3, 64, 64), 0.3, dtype=torch.float64)
    merged = model.merged(merge_counts("3", model.spec))
    torch.testing.assert_close(merged(flat), model(flat), rtol=0, atol=1e-10)
    with_means = model.spec.read_width + 3 * model.spec.width  # then logarithms of nothing
    ours, theirs = (
        network.logits_and_detector_features(flat)[1][:, :with_means] for network in (merged, model)
    )
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=0, atol=1e-5)


def test_schedules_and_what_cannot_be_one() -> None:
    spec = catalog.model("B/16")
    assert merge_counts("off", spec) == merge_counts("0", spec) == ()
    assert merge_counts("39/3", spec) == (39, 0, 0) * 4
    assert tokens_per_block(merge_counts("8", spec), spec)[-1] == 101
    assert tokens_per_block(merge_counts("16", spec), spec)[-1] == 11  # half of 20 at the end
    for wrong in ("", "x", "-3", "8,2", "8,-1,2", "0/3", "3/0", "1.5", "nan", "8,nan", "auto"):
        with pytest.raises(UsageError, match="tokens for each block"):
            merge_counts(wrong, spec)
    with pytest.raises(UsageError, match="no transformer blocks"):
        merge_counts("8", catalog.model("BiT-R50x1"))
    with pytest.raises(UsageError, match="inside attention"):
        merge_counts("8", replace(spec, positions="relative"))
    with pytest.raises(UsageError, match="every block"):
        merge_counts("8", replace(spec, positions_at="every"))
