"""Published weights: checkpoint(ID) reads a row of weights.toml, labels(NAME) the class names."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from vitral.errors import ModelError

BUCKETS = "https://storage.googleapis.com/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """One file of published weights.

    Attributes:
        id: what a person types: a hub id (`org/name`), `gs://BUCKET/FILE`, `torchvision/NAME`.
        format: whose names the tensors have.
        model: a name of the catalogue with the same network; None where the catalogue has none.
        file: inside the hub's repository, or the last part of the url.
        bytes: size of the file, within a few per cent.
        size: side of the square image in pixels.
        classes: of the head; 0 is no head.
        licence: of the weights, as their publisher names it.
        top1: ImageNet-1k validation accuracy in per cent, as published; None where it was not.
        url: where the file is; None for the hub's.
    """

    id: str
    format: str
    model: str | None = None
    file: str = "model.safetensors"
    bytes: int
    size: int
    classes: int
    licence: str
    top1: float | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        """Derive the url of Google's buckets, and the file of any url."""
        if self.id.startswith("gs://"):
            object.__setattr__(self, "url", BUCKETS + self.id.removeprefix("gs://"))
        if self.url:
            object.__setattr__(self, "file", self.url.rpartition("/")[2])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the key of the format is `home`."""
        return {"home" if key == "format" else key: value for key, value in asdict(self).items()}


@cache
def checkpoints() -> tuple[Checkpoint, ...]:
    """Every row of weights.toml, format by format."""
    table = tomllib.loads((files("vitral.catalog") / "weights.toml").read_text(encoding="utf-8"))
    return tuple(Checkpoint(format=format, **row) for format in table for row in table[format])


def checkpoint(id: str) -> Checkpoint | None:
    """The row with this id, or None: other ids of the hub work too, nothing is known of them."""
    return next((row for row in checkpoints() if row.id == id), None)


def labels(name: str) -> tuple[str, ...]:
    """Class names in the order of the logits; "imagenet-1k" is the ILSVRC 2012 list of 1000.

    Raises ModelError when there is no such list.
    """
    lists = {
        path.name.removesuffix(".txt"): path
        for path in (files("vitral.catalog") / "labels").iterdir()
    }
    if name not in lists:
        raise ModelError(f"There is no list of class names '{name}'; there is {', '.join(lists)}.")
    return tuple(lists[name].read_text(encoding="utf-8").splitlines())
