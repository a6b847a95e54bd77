"""Schedules of token merging: how many tokens each block merges, read from what `--merge` says."""

from __future__ import annotations

import math

from vitral.errors import UsageError
from vitral.specs.model import ModelSpec

OFF = "off"
AUTO = "auto"
HOW = (
    "--merge is off, auto, or tokens for each block: 8, or 8,-1 (ToMe's: from 16 in the first "
    "block down to 0 in the last), or 24/3 (24 in every third block)"
)


def merge_counts(merge: str, spec: ModelSpec) -> tuple[int, ...]:
    """Read how many tokens each block merges: () for "off", or one number a block.

    "R" merges R in every block; "R,I" from R (1 - |I|) to R (1 + |I|) on a line, rising for I > 0
    and falling for I < 0, as ToMe's schedules; "R/K" R in every K-th block.

    A block merges at most half of the patches that it has left. Raises UsageError for another text
    and for a network without tokens that could be merged.
    """
    if merge in {OFF, "0"}:
        return ()
    refuse_network(spec)
    tokens = spec.grid[0] * spec.grid[1]
    counts = []
    for count in _counts(merge, spec.depth):
        counts.append(min(count, tokens // 2))
        tokens -= counts[-1]
    return tuple(counts) if any(counts) else ()


def refuse_network(spec: ModelSpec) -> None:
    """Raise UsageError for a network whose tokens cannot be merged."""
    if not spec.depth:
        raise UsageError(f"{spec.name} has no transformer blocks, so no tokens to merge.")
    if not spec.adds_positions and spec.positions != "none":
        raise UsageError(
            f"{spec.name} has its positions inside attention ({spec.positions}): a merged token "
            f"would have none. Leave --merge out."
        )
    if spec.positions_at == "every":
        raise UsageError(
            f"{spec.name} adds positions in every block: a merged token would have none. Leave "
            f"--merge out."
        )


def tokens_per_block(counts: tuple[int, ...], spec: ModelSpec) -> list[int]:
    """List the tokens that enter each block's MLP, after it has merged."""
    tokens = spec.prefix + spec.grid[0] * spec.grid[1]
    left = []
    for count in counts or (0,) * spec.depth:
        tokens -= count
        left.append(tokens)
    return left


def _counts(merge: str, depth: int) -> tuple[int, ...]:
    try:
        if "/" in merge:
            count, every = (int(part) for part in merge.split("/"))
            if count < 1 or every < 1:
                raise ValueError(merge)
            return tuple(count * (index % every == 0) for index in range(depth))
        if "," not in merge:
            count = int(merge)
            if count < 1:
                raise ValueError(merge)
            return (count,) * depth
        number, inflection = merge.split(",")
        count = int(number)
        slope = float(inflection)
        if count < 1 or not -1 <= slope <= 1:
            raise ValueError(merge)
    except ValueError:
        raise UsageError(f"{HOW}; not '{merge}'.") from None
    first = int(count * (1 - slope))
    step = 2 * (count - first) / max(depth - 1, 1)  # so that the last has as much above as below
    return tuple(math.floor(first + step * index) for index in range(depth))
