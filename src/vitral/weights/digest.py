"""Digests of weights: by them the cache finds again what was computed from a network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vitral.specs import ModelSpec
from vitral.storage import cache
from vitral.weights.card import TENSORS

if TYPE_CHECKING:
    from torch import Tensor

_KIND = "digests"


def of_tensors(tensors: Mapping[str, Tensor], spec: ModelSpec) -> str:
    """Make a name of a network, by all of its weights."""
    import torch  # noqa: PLC0415 - that of an artifact needs none

    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors.items():
        digest.update(name.encode() + b"\0")
        values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(values.numpy().tobytes())
    return cache.key_of([digest.hexdigest(), spec.to_dict()])


def of_artifact(folder: Path, spec: ModelSpec) -> str | None:
    """Make a name of an artifact's network, by its file; None where that cannot be read.

    The content is read once: the cache remembers it for as long as size, time and place of the file
    stay what they are.
    """
    path = folder / TENSORS
    try:
        status = path.stat()
        stamp = [str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ino]
        key = cache.key_of(stamp)
        content = cache.load(_KIND, key)
        if not isinstance(content, str):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "blake2b").hexdigest()
            cache.store(_KIND, key, content)
    except OSError:
        return None
    return cache.key_of([content, spec.to_dict()])
