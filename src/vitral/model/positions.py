"""Positions of tokens: tables added to the tokens, rotations and offsets inside attention.

Appendix D.4 of the paper compares them. Tokens are class, distillation, registers, then patches in
raster order; of those before the patches the first spec.position_prefix have a position.

A new kind of position is an arm of the `match` in each of these: `Positions` if it is added to the
tokens, `position_context` with `rotate_queries_and_keys` or `attention_bias` if attention knows it.
Beside this file it needs its name and check in `specs/model.py`, and its count of parameters in
`specs/counts.py`.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitral.errors import ModelError
from vitral.specs import ModelSpec

Grid = tuple[int, int]
# how each code base moves learned positions to another grid
RULES: dict[str, dict[str, Any]] = {
    "google": {"mode": "bilinear", "align_corners": True},  # = scipy.ndimage.zoom(order=1)
    "timm": {"mode": "bicubic", "antialias": True},
    "transformers": {"mode": "bicubic"},
    "torchvision": {"mode": "bicubic", "align_corners": True},
    "flexivit": {"mode": "bilinear", "antialias": True},
    "dino": {"mode": "bicubic"},
}


class PositionContext(NamedTuple):
    """The places of a batch's tokens and which of them see one another, as attention knows them.

    Attributes:
        cos_sin: (2, N, head_width), cosines and sines that turn the last N queries and keys.
        relative_index: (T, T), the row of the relative table for each query and key, negative for
            none.
        causal: whether a token sees itself and those before it alone.
        sequence_ids: integers (B, T). Tokens see those of their own sequence alone, so that several
            can be packed into one row; a negative id is padding, which nothing sees.

    Where every image has patches of its own, cos_sin is (2, B, 1, N, head_width) and relative_index
    (B, 1, T, T).
    """

    cos_sin: Tensor | None = None
    relative_index: Tensor | None = None
    causal: bool = False
    sequence_ids: Tensor | None = None

    def select(self, chosen: Tensor, prefix: int) -> "PositionContext":
        """Return the context of some of the tokens: indices (B, T) that begin with the prefix."""
        cos_sin = self.cos_sin
        if cos_sin is not None:
            cos_sin = cos_sin[:, chosen[:, None, prefix:] - prefix]
        index = self.relative_index
        if index is not None:
            index = index[chosen[:, None, :, None], chosen[:, None, None, :]]
        ids = None if self.sequence_ids is None else self.sequence_ids.gather(1, chosen)
        return PositionContext(cos_sin, index, self.causal, ids)

    def visible(self, like: Tensor) -> Tensor | None:
        """Return which key (last axis) each query sees, for (B, heads, T, ...); None is all.

        Padding sees padding here, so that no row is empty: a softmax over nothing is NaN.
        """
        visible = None
        if self.sequence_ids is not None:
            ids = self.sequence_ids[:, None]
            visible = ids[..., :, None] == ids[..., None, :]
        if self.causal:
            tokens = like.shape[2]
            earlier = torch.ones(tokens, tokens, dtype=torch.bool, device=like.device).tril()
            visible = earlier if visible is None else visible & earlier
        return visible


def position_context(spec: ModelSpec, grid: Grid, like: Tensor) -> PositionContext | None:
    """Return what attention needs to know on that grid: a rotation, offsets, or nothing."""
    match spec.positions:
        case "relative" if grid != spec.grid:
            raise ModelError("Relative positions are offsets in one raster and cannot be resized.")
        case "relative":
            return PositionContext(relative_index=relative_index(spec, like))
        case "rope2d":
            return PositionContext(cos_sin=rotation(spec, grid, like))
        case _:
            return None


def relative_table(spec: ModelSpec) -> nn.Parameter | None:
    """Return the keys of all offsets that a block learns: one table for all its heads, or none.

    Where the paper (appendix D.4) is silent, as Shaw et al. 2018.
    """
    if spec.positions != "relative":
        return None
    positions = spec.position_prefix + spec.grid[0] * spec.grid[1]
    return nn.Parameter(torch.empty(2 * positions - 1, spec.attention_width // spec.heads))


def rotate_queries_and_keys(
    positions: str, q: Tensor, k: Tensor, context: PositionContext | None
) -> tuple[Tensor, Tensor]:
    """Return queries and keys (B, heads, T, head_width), turned where positions are rotations."""
    if positions != "rope2d":
        return q, k
    if context is None or context.cos_sin is None:
        raise ModelError("Rotated attention needs position_context(spec, grid, tokens).")
    return rotate(q, context.cos_sin), rotate(k, context.cos_sin)


def attention_bias(
    positions: str, table: Tensor | None, q: Tensor, scale: float, context: PositionContext | None
) -> Tensor | None:
    """Return what is added to the logits, (B, heads, T, T): query times the key of each offset.

    It is scaled as the logits of the contents are (appendix D.4).
    """
    if positions != "relative" or table is None:
        return None
    if context is None or context.relative_index is None:
        raise ModelError("Relative attention needs position_context(spec, grid, tokens).")
    index = context.relative_index.clamp(min=0).expand(*q.shape[:2], -1, -1)
    logits = (q @ table.T * scale).gather(-1, index)
    return logits.masked_fill(context.relative_index < 0, 0)


class Positions(nn.Module):
    """Tables that are added to the tokens (E_pos of equation 1): one, or one for every block."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        tables = spec.depth if spec.positions_at == "every" else 1
        rows, columns = spec.grid
        match spec.positions:
            case "learned":
                positions = spec.position_prefix + rows * columns
                self.table = nn.Parameter(torch.empty(tables, positions, spec.width))
            case "learned2d":
                self.rows = nn.Parameter(torch.empty(tables, rows, spec.width // 2))
                self.columns = nn.Parameter(torch.empty(tables, columns, spec.width // 2))
                if spec.position_prefix:
                    self.prefix = nn.Parameter(
                        torch.empty(tables, spec.position_prefix, spec.width)
                    )

    def forward(self, grid: Grid, like: Tensor) -> Tensor:
        """Return (tables, T, width): a row per token, zero for a token without a position."""
        spec = self.spec
        learned = self.on(grid)
        match spec.positions:
            case "learned":
                prefix, patches = learned["table"].tensor_split([spec.position_prefix], dim=1)
            case "learned2d":
                patches = _joined(learned["columns"], learned["rows"])
                prefix = learned.get("prefix", patches[:, :0])
            case "sincos2d" | "sincos2d_mae":
                prefix, patches = sincos2d(spec, grid, like).tensor_split([0], dim=1)
            case _:
                raise ModelError(f"positions='{spec.positions}' are not added to tokens.")
        none = patches.new_zeros(len(patches), spec.prefix - prefix.shape[1], spec.width)
        return torch.cat([prefix, none, patches], dim=1)

    def on(self, grid: Grid) -> dict[str, Tensor]:
        """Return the learned tables by name, resampled by spec.resample for another grid."""
        rule = self.spec.resample
        rows, columns = self.spec.grid
        tables: dict[str, Tensor] = dict(self.named_parameters())
        if "table" in tables:
            prefix, patches = tables["table"].tensor_split([self.spec.position_prefix], dim=1)
            tables["table"] = torch.cat([prefix, resample(patches, (rows, columns), grid, rule)], 1)
        if "rows" in tables:
            tables["rows"] = resample(tables["rows"], (rows, 1), (grid[0], 1), rule)
            tables["columns"] = resample(tables["columns"], (1, columns), (1, grid[1]), rule)
        return tables


def resample(table: Tensor, old: Grid, new: Grid, rule: str) -> Tensor:
    """Return (tables, rows * columns, width) on another grid, by the rule of the weights' maker."""
    if old == new:
        return table
    image = table.to(_precise(table)).unflatten(1, old).permute(0, 3, 1, 2)  # n (r c) d -> n d r c
    scale = None
    if rule == "dino":  # DINO and DINOv2 without registers: as if the grid were a tenth larger
        scale = [(n + 0.1) / o for n, o in zip(new, old, strict=True)]
    size = new if scale is None else None
    return (
        F.interpolate(image, size, scale, **RULES[rule]).flatten(2).transpose(1, 2).to(table.dtype)
    )


def sincos2d(spec: ModelSpec, grid: Grid, like: Tensor) -> Tensor:
    """Return (1, N, width): [sin x, cos x, sin y, cos y] of the patch's column x and row y.

    big_vision's lowest frequency is exactly 1/10000, MAE's stops one step short of it.
    """
    quarter = spec.width // 4
    steps = quarter - (spec.positions == "sincos2d")
    count = torch.arange(max(quarter, *grid), device=like.device, dtype=_precise(like))
    angles = count.outer(10000.0 ** -(count[:quarter] / steps))
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)[None]
    return _joined(waves[:, : grid[1]], waves[:, : grid[0]]).to(like.dtype)


def rotation(spec: ModelSpec, grid: Grid, like: Tensor) -> Tensor:
    """Return DINOv3's axial rotation: cosines and sines of the patches, (2, N, head_width).

    Patch centres run from -1 to 1 along each axis whatever the grid. A quarter of the channels
    turns with the row, the next with the column; the second half repeats the first.
    """
    quarter = spec.attention_width // spec.heads // 4
    count = torch.arange(max(quarter, *grid), device=like.device, dtype=_precise(like))
    frequencies = 2 * math.pi * spec.rope_base ** -(count[:quarter] / quarter)
    rows, columns = (((2 * count[:n] + 1) / n - 1).outer(frequencies)[None] for n in grid)
    angles = _joined(columns, rows)[0].roll(quarter, dims=1).repeat(1, 2)  # [x, y] -> [y, x, y, x]
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, cos_sin: Tensor) -> Tensor:
    """Return (B, heads, T, head_width) with the last N tokens turned; those before them stay."""
    prefix, patches = x.tensor_split([x.shape[2] - cos_sin.shape[-2]], dim=2)
    first, second = patches.chunk(2, dim=-1)
    turned = patches * cos_sin[0] + torch.cat([-second, first], dim=-1) * cos_sin[1]
    return torch.cat([prefix, turned.to(x.dtype)], dim=2)


def relative_index(spec: ModelSpec, like: Tensor) -> Tensor:
    """Return (T, T): p_query - p_key as a row of the relative table, negative for no position."""
    count = spec.position_prefix + spec.grid[0] * spec.grid[1]
    prefix, patches = torch.arange(count, device=like.device).tensor_split([spec.position_prefix])
    p = torch.cat([prefix, prefix.new_full((spec.prefix - len(prefix),), -1), patches])
    offsets = p[:, None] - p + count - 1
    return offsets.masked_fill((p[:, None] < 0) | (p < 0), -1)


def _joined(columns: Tensor, rows: Tensor) -> Tensor:  # (n, c, d), (n, r, d) -> (n, r c, 2 d)
    grid = (rows.shape[1], columns.shape[1])
    both = [columns[:, None].expand(-1, *grid, -1), rows[:, :, None].expand(-1, *grid, -1)]
    return torch.cat(both, dim=-1).flatten(1, 2)


def _precise(like: Tensor) -> torch.dtype:
    return torch.promote_types(like.dtype, torch.float32)
