"""A folder of what was computed once and may be forgotten at any time.

It is ~/.cache/vitral, or VITRAL_CACHE. Nothing here is ever needed: deleting it costs time only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vitral.errors import MachineError
from vitral.storage import files


def folder() -> Path:
    """Name the folder of the cache."""
    named = os.environ.get("VITRAL_CACHE")
    if named:
        return Path(named)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "vitral"


def key_of(parts: Iterable[object]) -> str:
    """Make a name for what was computed from these parts: a digest of them."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(repr(part).encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


def load(kind: str, key: str) -> Any:
    """Read the JSON value that was stored; None without one."""
    try:
        return json.loads((folder() / kind / f"{key}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def store(kind: str, key: str, value: Any) -> None:
    """Keep a JSON value; a cache that cannot be written is no error."""
    with contextlib.suppress(MachineError):
        files.write_text(folder() / kind / f"{key}.json", json.dumps(value))
