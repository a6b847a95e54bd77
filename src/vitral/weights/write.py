"""What another format can hold of a network, and how its file is laid out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from vitral.errors import WeightsError
from vitral.model.positions import sincos2d
from vitral.specs import ModelSpec
from vitral.weights import formats
from vitral.weights.read import Weights
from vitral.weights.rename import Layout, RenameTable, tables


def table_for(name: str, spec: ModelSpec) -> RenameTable:
    """The table to write a network with; WeightsError names the field that the format lacks."""
    format = formats.named(name)
    table = tables()[format.table_for(spec)]
    if lacking := _lacking(table, spec):
        raise WeightsError(f"{name} cannot hold {spec.name}: {lacking}")
    rules = (*_shared_refusals(table, spec), *format.refusals(table, spec))
    if reason := next((reason for broken, reason in rules if broken), ""):
        raise WeightsError(f"{name} cannot hold {spec.name}: {reason}.")
    return table


def _shared_refusals(table: RenameTable, spec: ModelSpec) -> tuple[tuple[bool, str], ...]:
    """What the table says that a format cannot hold: (whether it is so, a reason)."""
    name = table.format
    square = spec.size[0] == spec.size[1] and spec.patch[0] == spec.patch[1]
    shares_width = spec.is_resnet or spec.attention_width == spec.width
    tanh_under_head = spec.representation > 0 and spec.classes > 0
    return (
        (spec.is_resnet == table.transformer, f"{name} has no ResNet without a transformer"),
        (
            not shares_width and not table.free_head_width,
            f"{name}'s heads share the width, and these are {spec.attention_width} together",
        ),
        (table.square and not square, f"{name} takes square images and patches alone"),
        (not table.headless and not spec.classes, f"{name} has no model without a head"),
        (
            table.pre_logits_or_head and tanh_under_head,
            f"{name} has no tanh layer (model.representation) under a head",
        ),
        (
            spec.pool == "map" and spec.pool_norm == "after",
            f"{name} norms before a MAP head, not after (model.pool_norm)",
        ),
    )


def _lacking(table: RenameTable, spec: ModelSpec) -> str:
    """The fields whose value the format's code cannot run, and what to do; "" if there are none."""
    stem = table.supports.get("resnet")
    if spec.resnet is not None and stem is not None and not isinstance(stem, Mapping):
        return f"{table.format} has no convolutional stem (model.resnet)."
    asked = [
        (f"model.{name}", getattr(spec, name), held)
        for name, held in table.supports.items()
        if name != "resnet"
    ]
    if spec.resnet is not None and isinstance(stem, Mapping):
        asked += [
            (f"model.resnet.{name}", getattr(spec.resnet, name), held)
            for name, held in stem.items()
        ]
    lacking = [
        (name, value, " or ".join(map(str, held)))
        for name, value, held in asked
        if ("none" if value is None else value) not in held
    ]
    if not lacking:
        return ""
    facts = "; its ".join(
        f"{name} is {value!r}, and {table.format} has {held}" for name, value, held in lacking
    )
    words = " ".join(f"--set {name}={held.split(' or ')[0]}" for name, _, held in lacking)
    return f"its {facts}. With {words} the model is changed to that, if its tensors allow it."


def layout_for(table: RenameTable, spec: ModelSpec) -> Layout:
    """How the format writes this network where no file of its own came before."""
    return formats.named(table.format).layout(table, spec)


def as_learned_table(weights: Weights, name: str) -> tuple[Weights, tuple[str, ...]]:
    """The weights with fixed waves (sincos2d) as the table that a format without waves would learn.

    The logits stay as they are; trained further there, or at another size, the two would part.
    """
    spec = weights.card.model
    fixed = spec.positions in ("sincos2d", "sincos2d_mae")
    supports = tables()[formats.named(name).table_for(spec)].supports.get("positions", ())
    if not fixed or spec.positions in supports or "learned" not in supports:
        return weights, ()
    like = next(iter(weights.tensors.values()))
    table = sincos2d(spec, spec.grid, like)
    spec = replace(spec, positions="learned", prefix_positions=False)
    waves = weights.card.model.positions
    note = f"{name} computes no {waves} positions: they became a table, of this size"
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
