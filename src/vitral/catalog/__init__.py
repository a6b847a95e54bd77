"""The models that exist, as tables: model("S/16", classes=10) reads a row of models.toml."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields, replace
from functools import cache
from importlib.resources import files
from typing import Any

from vitral.errors import ModelError, SpecError
from vitral.specs import ModelSpec, ResNetSpec
from vitral.wording import did_you_mean

__all__ = ["model", "names", "size_of"]

PLAIN = re.compile(r"(?P<size>[\w-]+)/(?P<height>[1-9]\d*)(x(?P<width>[1-9]\d*))?")
HYBRID = re.compile(r"(?P<stem>R\d*)\+(?P<size>[\w-]+)/(?P<stride>\d+)")
RESNET = re.compile(r"(?P<kind>BiT|ResNet)-R(?P<depth>\d+)x(?P<factor>[1-9]\d*)")


def model(name: str, **changes: Any) -> ModelSpec:
    """The spec of a named model, with some of its fields changed.

    The names are the paper's (`S/16`, `B/16x8` for patches 16 high and 8 wide, `R50+B/16`,
    `BiT-R50x1`; `ResNet-R50x1` is big_vision's v1 with group norm), timm's
    (`vit_small_patch16_224`) and torchvision's (`vit_b_16`). Changes are the fields of ModelSpec:
    `model("S/16", size=128, classes=10, pool="mean")`. pool="mean" and "map" leave the class
    token out, as in the authors' code, unless class_token=True asks for it.

    Raises:
        ModelError: no such model; the message suggests one.
        SpecError: a change that ModelSpec does not have, or that does not fit.
    """
    values = _values(name.replace("μ", "mu"))
    allowed = {field.name for field in fields(ModelSpec)}
    for change in changes:
        if change not in allowed:
            raise SpecError(f"ModelSpec has no field '{change}'; {did_you_mean(change, allowed)}")
    return ModelSpec(**_merged({"name": name, **values}, changes))


def names() -> tuple[str, ...]:
    """Every listed name. Others exist too: any size with any patch, any stem with any size."""
    table = _table()
    listed = table["listed"]
    plain = [f"{size}/{patch}" for size in table["sizes"] for patch in listed["patches"]]
    bit = [f"BiT-R{depth}x{factor}" for depth in table["bit"] for factor in listed["factors"]]
    return (*plain, *listed["hybrids"], *bit, *table["named"])


def size_of(width: int, depth: int, mlp_width: int) -> str | None:
    """The size (S, B, ...) with these numbers; None if there is none."""
    wanted = {"width": width, "depth": depth, "mlp_width": mlp_width}
    sizes = _table()["sizes"].items()
    return next((name for name, row in sizes if wanted.items() <= row.items()), None)


@cache
def _table() -> dict[str, Any]:
    text = files(__name__).joinpath("models.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _values(name: str) -> dict[str, Any]:
    """The fields of a named model."""
    table = _table()
    if row := table["named"].get(name):
        style = table["styles"][row["style"]]
        changes = {key: row[key] for key in row if key not in ("model", "style")}
        return _merged(_merged(_values(row["model"]), style), changes)
    if (match := PLAIN.fullmatch(name)) and match["size"] in table["sizes"]:
        height = int(match["height"])
        return table["sizes"][match["size"]] | {"patch": (height, int(match["width"] or height))}
    match = HYBRID.fullmatch(name)
    stem = match and table["stems"].get(f"{match['stem']}/{match['stride']}")
    if match and stem and match["size"] in table["sizes"]:
        resnet = ResNetSpec(blocks=tuple(stem["blocks"]))
        return table["sizes"][match["size"]] | {"patch": stem["patch"], "resnet": resnet}
    if (match := RESNET.fullmatch(name)) and match["depth"] in table["bit"]:
        blocks = tuple(table["bit"][match["depth"]])
        values = table["resnets"][match["kind"]]
        return _resnet(ResNetSpec(blocks=blocks, width=64 * int(match["factor"]), **values))
    hint = did_you_mean(name, names(), "`vitral models` lists what exists.")
    raise ModelError(f"There is no model '{name}'; {hint}")


def _resnet(resnet: ResNetSpec) -> dict[str, Any]:
    absent = {"depth": 0, "heads": 0, "mlp_width": 0, "class_token": False, "patch": (1, 1)}
    return absent | {"width": resnet.outputs, "positions": "none", "pool": "mean", "resnet": resnet}


def _merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Values with changes on top; a change of the pool decides about the class token."""
    changes = dict(changes)
    if isinstance(stem := changes.get("resnet"), dict) and values.get("resnet"):
        changes["resnet"] = replace(values["resnet"], **stem)
    if changes.get("pool") in ("mean", "map"):
        changes.setdefault("class_token", False)
    return values | changes
