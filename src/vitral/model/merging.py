"""Token merging: similar patches become one token on their way through the blocks (ToMe, 2022).

Between attention and MLP of a block, half of the tokens (the even ones) each find the most similar
of the other half; the `count` most similar pairs become one token, the mean of what stands for it.
A token that stands for s patches counts as s of them: its key gets log s on its logits, and means
are weighted. Nothing is learnt, so that any trained network can do with fewer tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Matching(NamedTuple):
    """A choice of the tokens that are merged, and of the ones that they are merged into.

    Attributes:
        kept: (B, T / 2 - count) rows among the even tokens that stay, in their order.
        merged: (B, count) rows among the even tokens that go.
        into: (B, count) rows among the odd tokens that they become part of.
        prefix: tokens in front, which stay as they are.
    """

    kept: Tensor
    merged: Tensor
    into: Tensor
    prefix: int

    def sums(self, x: Tensor) -> Tensor:
        """Add up (B, T, D) over what becomes one token: (B, T - count, D).

        The prefix comes first, then the even tokens that are left, then the odd ones.
        """
        even = x[:, ::2]
        odd = x[:, 1::2]
        gone = even.gather(1, _columns(self.merged, x))
        odd = odd.scatter_add(1, _columns(self.into, x), gone)
        even = even.gather(1, _columns(self.kept, x))
        return torch.cat(
            [x[:, : self.prefix], even[:, -(-self.prefix // 2) :], odd[:, self.prefix // 2 :]],
            dim=1,
        )


def _columns(rows: Tensor, x: Tensor) -> Tensor:
    return rows[:, :, None].expand(-1, -1, x.shape[2])


def match(keys: Tensor, count: int, prefix: int) -> Matching:
    """Choose the `count` tokens to merge, by the cosine of their keys: (B, T, D), of all heads.

    Tokens of the prefix are never merged, nor merged into. Of pairs that are as similar the first
    goes first, so that an image merges alike in any batch.
    """
    normed = F.normalize(keys, dim=-1)  # a key of zeros stays one
    scores = normed[:, ::2] @ normed[:, 1::2].mT
    scores[:, : -(-prefix // 2)] = -torch.inf
    scores[:, :, : prefix // 2] = -torch.inf
    best, into = scores.max(dim=-1)
    order = best.argsort(dim=-1, descending=True, stable=True)
    merged = order[:, :count]
    kept = order[:, count:]
    return Matching(
        kept=kept.sort(dim=1).values if prefix else kept,
        merged=merged,
        into=into.gather(1, merged),
        prefix=prefix,
    )


class Merging:
    """The merging of one pass: what each token stands for so far, and what the next block merges.

    Attributes:
        counts: how many tokens each block merges.
        prefix: tokens in front, which stay as they are.
        sizes: for each block how many patches each token stands for that enters it, (B, T, 1) or
            None while each is one; then for what leaves the last.
    """

    def __init__(self, counts: tuple[int, ...], prefix: int) -> None:
        self.counts = counts
        self.prefix = prefix
        self.sizes: list[Tensor | None] = [None]

    def key_bias(self) -> Tensor | None:
        """Return what a key's logits gain, log size: (B, 1, 1, T)."""
        sizes = self.sizes[-1]
        return None if sizes is None else sizes.log().mT[:, None]

    def merge(self, x: Tensor, keys: Tensor) -> Tensor:
        """Merge the tokens (B, T, width) of the block whose keys are (B, heads, T, head_width)."""
        count = self.counts[len(self.sizes) - 1]
        sizes = self.sizes[-1]
        if not count:
            self.sizes.append(sizes)
            return x
        matching = match(keys.mean(dim=1), count, self.prefix)
        sizes = x.new_ones(*x.shape[:2], 1) if sizes is None else sizes
        merged = matching.sums(sizes)
        self.sizes.append(merged)
        return matching.sums(x * sizes) / merged


def mean_of_patches(x: Tensor, sizes: Tensor | None) -> Tensor:
    """Average tokens (B, T, D) over the patches that they stand for: (B, D)."""
    if sizes is None:
        return x.mean(dim=1)
    return (x * sizes).sum(dim=1) / sizes.sum(dim=1)
