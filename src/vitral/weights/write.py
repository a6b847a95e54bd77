"""The way out: the networks that another format can hold, and the layout of its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from vitral.errors import WeightsError
from vitral.model.positions import sincos2d
from vitral.specs import ModelSpec
from vitral.weights import formats
from vitral.weights.read import Weights
from vitral.weights.rename import Layout, RenameTable, tables


def table_for(name: str, spec: ModelSpec, layout: Layout | None = None) -> RenameTable:
    """Find the table to write a network with; WeightsError names what the format lacks.

    `layout` is of the file that the network was read from; what was a file of the format once can
    be one again.
    """
    format = formats.named(name)
    table = tables()[format.table_for(spec)]
    if lacking := _lacking(table, spec):
        raise WeightsError(f"{name} cannot hold {spec.name}: {lacking}")
    reasons = (*_shared_refusals(table, spec), *format.refusals(table, spec))
    came_from_it = layout is not None and layout.table == table.name
    if reasons and not came_from_it:
        raise WeightsError(f"{name} cannot hold {spec.name}: {reasons[0]}.")
    return table


def _shared_refusals(table: RenameTable, spec: ModelSpec) -> Iterator[str]:
    """What the table says that its format cannot hold."""
    name = table.format
    if spec.is_resnet == table.transformer:
        yield f"{name} has no ResNet without a transformer"
    shares_width = spec.is_resnet or spec.attention_width == spec.width
    if not shares_width and not table.free_head_width:
        yield f"{name}'s heads share the width, and these are {spec.attention_width} together"
    square = spec.size[0] == spec.size[1] and spec.patch[0] == spec.patch[1]
    if table.square and not square:
        yield f"{name} takes square images and patches alone"
    if not table.headless and not spec.classes:
        yield f"{name} has no model without a head"
    if table.pre_logits_or_head and spec.representation and spec.classes:
        yield f"{name} has no tanh layer (model.representation) under a head"
    if spec.pool == "map" and spec.pool_norm == "after":
        yield f"{name} norms before a MAP head, not after (model.pool_norm)"


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
    """Return the layout of a network where no file of the format came before."""
    return formats.named(table.format).layout(table, spec)


def as_learned_table(weights: Weights, name: str) -> tuple[Weights, tuple[str, ...]]:
    """Replace fixed waves (sincos2d) by the table that a format without waves would learn.

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
    """Add or fold rows of positions as the format has them; the logits stay as they are."""
    spec = weights.card.model
    tensors = dict(weights.tensors)
    prefix = spec.class_token + spec.distillation_token
    rows = tensors.get("positions.table")
    if rows is None or not prefix:
        return weights, ()
    beside_registers = spec.registers and spec.prefix_positions and not spec.register_positions
    if table.prefix_rows == "zero" and not spec.prefix_positions:
        zeros = torch.zeros(len(rows), prefix, rows.shape[2])
        tensors["positions.table"] = torch.cat([zeros, rows], dim=1)
        note = f"{table.format} has positions for all tokens: rows of zeros were added"
        spec = replace(spec, prefix_positions=True)
    elif table.prefix_rows == "folded" and beside_registers:
        tensors["cls"] = tensors["cls"] + rows[:, :1]
        tensors["positions.table"] = rows[:, prefix:]
        note = (
            f"the class token's position was added into it, as {table.format} does beside registers"
        )
        spec = replace(spec, prefix_positions=False)
    else:
        return weights, ()
    return replace(weights, tensors=tensors, card=replace(weights.card, model=spec)), (note,)
