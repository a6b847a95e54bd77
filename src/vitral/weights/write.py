"""What another format can hold of a network, and how its file is laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from vitral.errors import WeightsError
from vitral.model import sincos2d
from vitral.specs import ModelSpec
from vitral.weights.read import Weights
from vitral.weights.rename import Layout, RenameTable, tables


def table_for(format: str, spec: ModelSpec) -> RenameTable:
    """The table to write a network with; WeightsError names the field that the format lacks."""
    found = tables()[_table_name(format, spec)]
    refusal = _refusal(found, spec)
    if refusal:
        raise WeightsError(f"{format} cannot hold {spec.name}: {refusal}")
    return found


def _table_name(format: str, spec: ModelSpec) -> str:
    rotated, scaled = spec.positions == "rope2d", spec.layer_scale is not None
    match format:
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
            raise WeightsError(f"There is no format '{format}'.")


def _refusal(table: RenameTable, spec: ModelSpec) -> str:
    """Why the format cannot run it, "" if it can."""
    format, stem = table.format, table.supports.get("resnet")
    if spec.resnet is not None and stem is not None and not isinstance(stem, Mapping):
        return f"{format} has no convolutional stem (model.resnet)."
    if lacking := _lacking(table, spec):
        facts = "; its ".join(
            f"{name} is {value!r}, and {format} has {x}" for name, value, x in lacking
        )
        words = " ".join(f"--set {name}={held.split(' or ')[0]}" for name, _, held in lacking)
        return f"its {facts}. With {words} the model is changed to that, if its tensors allow it."
    square = spec.size[0] == spec.size[1] and spec.patch[0] == spec.patch[1]
    tanh = spec.representation > 0 and spec.classes > 0
    distilled = spec.distillation_token
    shares_width = spec.is_resnet or spec.attention_width == spec.width
    distilled_rows = distilled and not spec.prefix_positions
    rules = (
        (
            spec.is_resnet != table.name.endswith("_bit"),
            f"{format} has no ResNet without a transformer",
        ),
        (
            not shares_width and format != "google",
            f"{format}'s heads share the width, and these are {spec.attention_width} together",
        ),
        (table.square and not square, f"{format} takes square images and patches alone"),
        (not table.headless and not spec.classes, f"{format} has no model without a head"),
        (
            table.pre_logits_or_head and tanh,
            f"{format} has no tanh layer (model.representation) under a head",
        ),
        (
            spec.pool == "map" and spec.pool_norm == "after",
            f"{format} norms before a MAP head, not after (model.pool_norm)",
        ),
        (
            format == "timm" and distilled_rows,
            "timm's distilled models have positions for both their tokens",
        ),
        (
            format == "timm" and distilled and spec.registers > 0,
            "timm's distilled models have no registers",
        ),
        (
            format == "timm" and spec.pool == "map" and spec.prefix > 0,
            "timm's MAP head attends to the patches alone, and here there are tokens before them",
        ),
        (
            format == "google" and spec.class_token != (spec.pool == "cls"),
            "google has a class token where it is what is pooled, and nowhere else (model.pool)",
        ),
    )
    return next((f"{reason}." for broken, reason in rules if broken), "")


def _lacking(table: RenameTable, spec: ModelSpec) -> list[tuple[str, Any, str]]:
    """Fields whose value the format does not hold, the value, and what it holds."""
    asked = [(name, getattr(spec, name), held) for name, held in table.supports.items()]
    fields = [(f"model.{name}", value, held) for name, value, held in asked if name != "resnet"]
    stem = table.supports.get("resnet")
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


def layout_for(table: RenameTable, spec: ModelSpec) -> Layout:
    """How the format writes this network where no file of its own came before."""
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


def as_learned_table(weights: Weights, format: str) -> tuple[Weights, tuple[str, ...]]:
    """The weights with fixed waves (sincos2d) as the table that a format without waves would learn.

    The logits stay as they are; trained further there, or at another size, the two would part.
    """
    spec = weights.card.model
    waves = spec.positions in ("sincos2d", "sincos2d_mae")
    supports = tables()[_table_name(format, spec)].supports.get("positions", ())
    if not waves or spec.positions in supports or "learned" not in supports:
        return weights, ()
    like = next(iter(weights.tensors.values()))
    table = sincos2d(spec, spec.grid, like)
    spec = replace(spec, positions="learned", prefix_positions=False)
    name = weights.card.model.positions
    note = f"{format} computes no {name} positions: they became a table, of this size"
    tensors = {**weights.tensors, "positions.table": table}
    return replace(weights, tensors=tensors, card=replace(weights.card, model=spec)), (note,)


def with_zero_rows(weights: Weights, table: RenameTable) -> tuple[Weights, tuple[str, ...]]:
    """The weights with rows of positions where the format has them; the logits stay as they are."""
    spec, tensors = weights.card.model, dict(weights.tensors)
    prefix = spec.class_token + spec.distillation_token
    rows = tensors.get("positions.table")
    if rows is None or not prefix:
        return weights, ()
    if table.prefix_rows == "zero" and not spec.prefix_positions:
        zeros = torch.zeros(len(rows), prefix, rows.shape[2])
        tensors["positions.table"] = torch.cat([zeros, rows], dim=1)
        note = f"{table.format} has positions for all tokens: rows of zeros were added"
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
            f"the class token's position was added into it, as {table.format} does beside registers"
        )
        spec = replace(spec, prefix_positions=False)
    else:
        return weights, ()
    return replace(weights, tensors=tensors, card=replace(weights.card, model=spec)), (note,)
