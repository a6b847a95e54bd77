"""The schedules of token merging that were chosen for networks here, in the cache."""

from __future__ import annotations

from typing import Any

from vitral.engines.openvino_runtime import processor
from vitral.storage import cache

_KIND = "merge_choices"


def kept(digest: str, engine: str, precision: str) -> str | None:
    """Return the schedule chosen before for weights with this digest; None for none."""
    found = cache.load(_KIND, _key(digest, engine, precision))
    return (
        found["merge"] if isinstance(found, dict) and isinstance(found.get("merge"), str) else None
    )


def keep(digest: str, engine: str, precision: str, choice: dict[str, Any]) -> None:
    """Keep a choice: `merge`, and what else was measured."""
    cache.store(_KIND, _key(digest, engine, precision), choice)


def digest_of(digest: str, counts: tuple[int, ...]) -> str:
    """Name the network with this digest whose blocks merge so many tokens."""
    return cache.key_of((digest, *counts)) if counts else digest


def _key(digest: str, engine: str, precision: str) -> str:
    return cache.key_of((digest, engine, precision, processor()))
