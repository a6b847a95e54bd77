"""What another home can hold of a network, and how its file is laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from vitral.errors import WeightsError
from vitral.spec import ModelSpec
from vitral.weights.incoming import Weights
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
    for name, allowed in table.holds.items():
        value = getattr(spec, name)
        if name == "resnet":
            reason = _stem_refusal(table, spec)
        else:
            reason = (
                "" if _plain(value) in allowed else _lacks(table, f"model.{name}", value, allowed)
            )
        if reason:
            return reason
    home = table.home
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


def _stem_refusal(table: Table, spec: ModelSpec) -> str:
    allowed = table.holds["resnet"]
    if spec.resnet is None:
        return ""
    if not isinstance(allowed, Mapping):
        return f"{table.home} has no convolutional stem (model.resnet)."
    for name, values in allowed.items():
        if getattr(spec.resnet, name) not in values:
            return _lacks(table, f"model.resnet.{name}", getattr(spec.resnet, name), values)
    return ""


def _lacks(table: Table, name: str, value: Any, allowed: Sequence[Any]) -> str:
    options = " or ".join(str(option) for option in allowed)
    return (
        f"its {name} is {value!r}, and {table.home} has {options}. With --set {name}={allowed[0]} "
        "the model is changed to that, if its tensors allow it."
    )


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
