"""What another home can hold of a network, and how its file is laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from vitral.errors import WeightsError
from vitral.model import sincos2d
from vitral.specs import ModelSpec
from vitral.weights.read import Weights
from vitral.weights.rename import Layout, Table, tables


def table_for(home: str, spec: ModelSpec) -> Table:
    """The table to write a network with; WeightsError names the field that the home lacks."""
    found = tables()[_table_name(home, spec)]
    refusal = _refusal(found, spec)
    if refusal:
        raise WeightsError(f"{home} cannot hold {spec.name}: {refusal}")
    return found


def _table_name(home: str, spec: ModelSpec) -> str:
    rotated, scaled = spec.positions == "rope2d", spec.layer_scale is not None
    match home:
        case "google":
            return "google_bit" if spec.is_resnet else "google_vit"
        case "timm":
            return "timm_bit" if spec.is_resnet else "timm_eva" if rotated else "timm_vit"
        case "transformers":
            plain = "deit_single" if spec.register_positions else "vit"
            kind = "deit" if spec.distillation_token else "dinov2" if scaled else plain
            return "transformers_dinov3" if rotated else f"transformers_{kind}"
        case "torchvision":
            return "torchvision_vit"
        case _:
            raise WeightsError(f"There is no home '{home}'.")


def _refusal(table: Table, spec: ModelSpec) -> str:
    """Why the home cannot run it, "" if it can."""
    home, stem = table.home, table.holds.get("resnet")
    if spec.resnet is not None and stem is not None and not isinstance(stem, Mapping):
        return f"{home} has no convolutional stem (model.resnet)."
    if lacking := _lacking(table, spec):
        facts = "; its ".join(
            f"{name} is {value!r}, and {home} has {x}" for name, value, x in lacking
        )
        words = " ".join(f"--set {name}={held.split(' or ')[0]}" for name, _, held in lacking)
        return f"its {facts}. With {words} the model is changed to that, if its tensors allow it."
    square = spec.size[0] == spec.size[1] and spec.patch[0] == spec.patch[1]
    shared = spec.is_resnet or spec.attention_width == spec.width
    tanh, distilled = spec.representation and spec.classes, spec.distillation_token
    rules = {
        f"{home} has no ResNet without a transformer": spec.is_resnet
        != table.name.endswith("_bit"),
        f"{home}'s heads share the width, and these are {spec.attention_width} together": not shared
        and home != "google",
        f"{home} takes square images and patches alone": table.square and not square,
        f"{home} has no model without a head": not table.headless and not spec.classes,
        f"{home} has no tanh layer (model.representation) under a head": table.pre_logits_or_head
        and tanh,
        f"{home} norms before a MAP head, not after (model.pool_norm)": spec.pool == "map"
        and spec.pool_norm == "after",
        "timm's distilled models have positions for both their tokens": home == "timm"
        and distilled
        and not spec.prefix_positions,
        "timm's distilled models have no registers": home == "timm"
        and distilled
        and spec.registers,
        "timm's MAP head attends to the patches alone, and here there are tokens before them": home
        == "timm"
        and spec.pool == "map"
        and spec.prefix > 0,
        "google has a class token where it is what is pooled, and nowhere else (model.pool)": home
        == "google"
        and spec.class_token != (spec.pool == "cls"),
    }
    return next((f"{reason}." for reason, broken in rules.items() if broken), "")


def _lacking(table: Table, spec: ModelSpec) -> list[tuple[str, Any, str]]:
    """Fields whose value the home does not hold, the value, and what it holds."""
    asked = [(name, getattr(spec, name), held) for name, held in table.holds.items()]
    fields = [(f"model.{name}", value, held) for name, value, held in asked if name != "resnet"]
    stem = table.holds.get("resnet")
    if spec.resnet is not None and isinstance(stem, Mapping):
        parts = ((name, getattr(spec.resnet, name), held) for name, held in stem.items())
        fields += [(f"model.resnet.{name}", value, held) for name, value, held in parts]
    return [
        (name, value, " or ".join(map(str, held)))
        for name, value, held in fields
        if _plain(value) not in held
    ]


def _plain(value: Any) -> Any:
    return "none" if value is None else value


def layout_for(table: Table, spec: ModelSpec) -> Layout:
    """How the home writes this network where no file of its own came before."""
    variants: tuple[str, ...] = ()
    rows_alone = not (spec.class_token and spec.prefix_positions)
    if table.name == "timm_vit":
        mean = spec.pool == "mean" and spec.pool_norm == "after"
        rootless = spec.resnet is not None and not spec.resnet.blocks
        variants = ("mean",) * mean + ("root_only",) * rootless
    elif table.name == "google_vit" and (rows_alone or spec.pool == "map"):
        variants = ("linen", "big_vision")
    wide = table.name == "google_vit" and spec.resnet is not None
    prefix = table.prefix if spec.classes else ""
    return Layout(table=table.name, prefix=prefix, variants=variants, wide=wide)


def baked(weights: Weights, home: str) -> tuple[Weights, tuple[str, ...]]:
    """The weights with fixed waves (sincos2d) as the table that a home without waves would learn.

    The logits stay as they are; trained further there, or at another size, the two would part.
    """
    spec = weights.card.model
    waves = spec.positions in ("sincos2d", "sincos2d_mae")
    holds = tables()[_table_name(home, spec)].holds.get("positions", ())
    if not waves or spec.positions in holds or "learned" not in holds:
        return weights, ()
    like = next(iter(weights.tensors.values()))
    table = sincos2d(spec, spec.grid, like)
    spec = replace(spec, positions="learned", prefix_positions=False)
    name = weights.card.model.positions
    note = f"{home} computes no {name} positions: they became a table, of this size"
    tensors = {**weights.tensors, "positions.table": table}
    return replace(weights, tensors=tensors, card=replace(weights.card, model=spec)), (note,)


def settled(weights: Weights, table: Table) -> tuple[Weights, tuple[str, ...]]:
    """The weights with rows of positions where the home has them; the logits stay as they are."""
    spec, tensors = weights.card.model, dict(weights.tensors)
    prefix = spec.class_token + spec.distillation_token
    rows = tensors.get("positions.table")
    if rows is None or not prefix:
        return weights, ()
    if table.prefix_rows == "zero" and not spec.prefix_positions:
        zeros = torch.zeros(len(rows), prefix, rows.shape[2])
        tensors["positions.table"] = torch.cat([zeros, rows], dim=1)
        note = f"{table.home} has positions for all tokens: rows of zeros were added"
        spec = replace(spec, prefix_positions=True)
    elif (
        table.prefix_rows == "folded"
        and spec.registers
        and spec.prefix_positions
        and not spec.register_positions
    ):
        tensors["cls"] = tensors["cls"] + rows[:, :1]
        tensors["positions.table"] = rows[:, prefix:]
        note = (
            f"the class token's position was added into it, as {table.home} does beside registers"
        )
        spec = replace(spec, prefix_positions=False)
    else:
        return weights, ()
    return replace(weights, tensors=tensors, card=replace(weights.card, model=spec)), (note,)
