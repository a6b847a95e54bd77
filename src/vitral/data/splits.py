"""Hold samples out where the user has not said which: stratified, seeded, copies together.

A sample's place depends on its own name and the seed, so that adding files moves few others.
Copies of a picture, near or exact, go to one side: a test on pictures that were learnt would
flatter. For that every picture is decoded once at the coarsest scale, which costs less than an
epoch does; the answer is remembered in the user's cache, and pictures that cannot be decoded are
named before the training starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vitral.data import near_duplicates
from vitral.data.near_duplicates import Tick
from vitral.data.sources import Problem, ScanResult
from vitral.storage import cache

_WORTH_KEEPING = 1000  # pictures; fewer are looked at again sooner than said


@dataclass(frozen=True, slots=True, eq=False)
class DuplicateGroups:
    """Pictures of one source that are copies of one another, and those that cannot be decoded.

    Attributes:
        group_ids: int64 (n,), equal for pictures that are copies of one another.
        failed: the pictures that cannot be decoded, by row.
        remarks: on pictures of which nothing, or nothing but one colour, would be seen.
    """

    group_ids: np.ndarray
    failed: dict[int, Problem] = field(default_factory=dict)
    remarks: tuple[Problem, ...] = ()


def duplicate_groups(scanned: ScanResult, where: str, tick: Tick | None = None) -> DuplicateGroups:
    """Decodes and compares every picture, or remembers what came of it.

    Args:
        scanned: the pictures.
        where: tells them from others of the same name, size and date.
        tick: told of the progress.
    """
    names = zip(scanned.names, scanned.sizes, scanned.stamps, strict=True)
    key = cache.key_of(["copies 3", where, *names])
    known = cache.load("copies", key) if len(scanned.names) >= _WORTH_KEEPING else None
    if known is None:
        thumbnails = near_duplicates.thumbnails_of(scanned, tick)
        group_ids = near_duplicates.groups(thumbnails.images, thumbnails.contents)
        failed = {row: (why.reason, why.code) for row, why in thumbnails.failed.items()}
        remarks = [(why.path, why.reason, why.code) for why in thumbnails.remarks]
        known = {
            "groups": group_ids.tolist(),
            "failed": list(failed.items()),
            "remarks": remarks,
        }
        if len(scanned.names) >= _WORTH_KEEPING:
            cache.store("copies", key, known)
    return DuplicateGroups(
        np.array(known["groups"], dtype=np.int64),
        {row: Problem(scanned.names[row], *why) for row, why in known["failed"]},
        tuple(Problem(*remark) for remark in known["remarks"]),
    )


def stratified(
    keys: Sequence[str],
    labels: np.ndarray,
    seed: int,
    fraction: float,
    group_ids: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Divides rows into training and held out: the same share of each class, one of each at least.

    Args:
        keys: the name of each sample.
        labels: int64 (n,), or bool (n, classes), where a sample counts for its rarest class.
        seed: of the choice.
        fraction: share to hold out, between 0 and 1.
        group_ids: int64 (n,), equal for samples that belong on one side; None where none do.
    """
    order = [
        hashlib.blake2b(f"{seed}/{key}".encode("utf-8", "surrogateescape"), digest_size=8).digest()
        for key in keys
    ]
    together: dict[int, list[int]] = {}
    for row in sorted(range(len(keys)), key=order.__getitem__):
        together.setdefault(row if group_ids is None else int(group_ids[row]), []).append(row)
    by_class: dict[int, list[list[int]]] = {}
    strata = _strata(labels)
    for rows in together.values():
        by_class.setdefault(int(strata[rows[0]]), []).append(rows)
    held_out = np.zeros(len(keys), dtype=bool)
    for groups in by_class.values():
        held_out[_chosen(groups, fraction)] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _chosen(groups: list[list[int]], fraction: float) -> list[int]:
    """The rows of whole groups that fill the share, in their order; never all of them.

    Where a class is nothing but copies of one picture, they are divided all the same.
    """
    if len(groups) == 1:
        groups = [[row] for row in groups[0]]
    if len(groups) == 1:
        return []
    count = sum(map(len, groups))
    wanted = min(max(1, round(count * fraction)), count - 1)
    chosen: list[int] = []
    for rows in groups:
        if len(chosen) + len(rows) <= wanted:
            chosen += rows
    return chosen or min(groups, key=len)


def _strata(labels: np.ndarray) -> np.ndarray:
    """The class that each sample counts for; the number of classes where it has none."""
    if labels.ndim == 1:
        return labels
    counts = np.where(labels, labels.sum(axis=0), len(labels) + 1)
    return np.where(labels.any(axis=1), counts.argmin(axis=1), labels.shape[1])
