"""Checkpoint formats, whose tensors and settings convert, load and train --from read and write.

A format is one file of this folder, which holds its `format` (a `base.Format`), and its rename
tables in tables/. Importing this package loads neither them nor torch, so that --help stays quick.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vitral.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from vitral.weights.formats.base import Format


OWN = "vitral"  # an artifact where it is written; read as a state_dict, too


def names() -> list[str]:
    """List the formats that --to accepts, beside "vitral"."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.replace("_", "-") for name in modules if name not in ("base", OWN))


def named(name: str) -> Format:
    """Return the format of that name; UsageError where there is none."""
    if name not in (*names(), OWN):
        raise UsageError(f"There is no format '{name}'; --to is vitral, {', '.join(names())}.")
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    format: Format = module.format
    return format


def of_config(config: Mapping[str, Any] | None) -> str:
    """Name the format whose config.json this is, "" if it is nobody's."""
    kinds = (*names(), OWN)
    return next((name for name in kinds if config and named(name).detect(config)), "")


def join(files: Mapping[str, Mapping[str, Tensor]]) -> Mapping[str, Tensor] | None:
    """Return the one network that several checkpoints of a folder make, if a format has such."""
    joined = (named(name).join(files) for name in names())
    return next((tensors for tensors in joined if tensors is not None), None)


def refuse_unexpected(keys: Sequence[str]) -> str:
    """Say what network has names that no table knows, "" where no format tells."""
    return next(filter(None, (named(name).refuse_unexpected(keys) for name in names())), "")
