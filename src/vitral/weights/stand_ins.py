"""torch's files read without the classes in them: what is no tensor or plain value stands in.

Training scripts keep settings, metrics or the whole network object beside their tensors. Each class
that such a file names is replaced by an empty one made here, so that nothing of the file runs, and
the tensors inside are read all the same.
"""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MOST = 2000  # classes of one file
UNKNOWN = re.compile(r"Unsupported global: GLOBAL (\S+) was not an allowed")
NO_MAPPING = re.compile(r"(?:Can only SETITEMS? for .* but got|items for) <class '(.+?)'>")


class StandIn:
    """An object of a class that is not loaded: `values` is what it held, by name where it had any.

    It takes whatever it is made of, and does nothing with it.
    """

    values: Any = None

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Take any arguments."""
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        """Keep the state as it stood in the file."""
        self.values = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Say that it is a kind of dictionary, which torch 2.6 does not look for."""
        raise TypeError(f"items for {type(self)}")

    @property
    def path(self) -> str:
        """The name of the class that it stands for."""
        return f"{type(self).__module__}.{type(self).__qualname__}"


class MappingStandIn(StandIn):
    """A stand-in for a kind of dictionary, of which only the content is kept."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Make a plain dictionary, which torch's reader fills."""
        return OrderedDict()


def load(path: Path) -> Any:
    """Return what torch.load(weights_only=True) reads, with a StandIn for each unknown object.

    Raises what torch raises where the file is no such file, or reaches for a module that could
    touch the system.
    """
    kinds: dict[str, type[StandIn]] = dict.fromkeys(_names(path), StandIn)
    for _ in range(MOST):
        try:
            classes = [_class(name, kind) for name, kind in kinds.items()]
            with torch.serialization.safe_globals(classes), warnings.catch_warnings():
                # a program is refused in our own words
                warnings.filterwarnings("ignore", message=".*TorchScript archive")
                return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # broken bytes raise anything at all in there
            message = str(error)
            if (found := UNKNOWN.search(message)) and found[1] not in kinds:
                kinds[found[1]] = StandIn
            elif (found := NO_MAPPING.search(message)) and kinds.get(found[1]) is StandIn:
                kinds[found[1]] = MappingStandIn
            else:
                raise
    raise ValueError(f"it names more than {MOST} classes")


def _names(path: Path) -> list[str]:
    """The classes that a file of today's form names; the older form tells one at a time."""
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # torch.load says what is wrong with it
        return []


def _class(name: str, kind: type[StandIn]) -> Any:
    """An empty class under the name of the one that it replaces."""
    module, _, own = name.rpartition(".")
    return type(own, (kind,), {"__module__": module or "builtins", "__qualname__": own})


def is_module(value: Any) -> bool:
    """Tell whether this stands for a torch.nn.Module."""
    state = value.values if isinstance(value, StandIn) else None
    return isinstance(state, Mapping) and {"_parameters", "_modules"} <= state.keys()


def state_dict(module: StandIn, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield what the state_dict of the module has that this stands for: names and tensors."""
    state = module.values
    passing = state.get("_non_persistent_buffers_set") or ()
    for kind in ("_parameters", "_buffers"):
        for name, x in (state.get(kind) or {}).items():
            if isinstance(x, Tensor) and name not in passing:
                yield f"{prefix}{name}", x.detach()
    for name, inner in state["_modules"].items():
        if is_module(inner):
            yield from state_dict(inner, f"{prefix}{name}.")
