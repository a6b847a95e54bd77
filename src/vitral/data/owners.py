"""Keep pictures of one patient together: they are no test of one another.

Two X-rays, or two close-ups of a lesion, are alike by whose they are, which a table may say. So
those of one belong on one side of a split, as copies do.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vitral.data import near_duplicates
from vitral.data.decisions import Decision
from vitral.data.sources import ScanResult, SourceOptions


def together(group_ids: np.ndarray, scanned: ScanResult) -> np.ndarray:
    """Joins the groups of copies to groups of pictures that are of the same patient or the like."""
    last: dict[str, int] = {}
    pairs = []
    for row, name in enumerate(scanned.names):
        owner = scanned.owners.get(name)
        if owner is not None:
            pairs.append((last.get(owner, row), row))
            last[owner] = row
    if not pairs:
        return group_ids
    left, right = np.array(pairs, dtype=np.int64).T
    _, first, own = np.unique(group_ids, return_index=True, return_inverse=True)
    return near_duplicates.merged(first[own], left, right)


def decided(
    scanned: ScanResult, held: ScanResult | None, options: SourceOptions
) -> Iterator[Decision]:
    """Says that pictures of one patient stay on one side, or that an own split divides them."""
    known = set(scanned.owners.values())
    if not known or (held is not None and not held.owners):
        return
    column = min(known).partition("=")[0]
    if held is None and options.groups == "none":
        yield Decision("split", f"Column '{column}' is not heeded (data.groups=none).")
        return
    if held is None:
        yield Decision(
            "split",
            f"Pictures of the same '{column}' stay on one side, unless a class has no other "
            f"({len(known):,} of them). Otherwise: --set data.groups=none.",
        )
        return
    both = sorted(known & set(held.owners.values()))
    if both:
        yield Decision(
            "split",
            f"The split has pictures of the same '{column}' on both sides ({len(both):,} of them, "
            f"such as {both[0]}): its accuracy flatters where those are alike.",
        )
