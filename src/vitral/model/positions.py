"""Where a token stands: tables added to the tokens, rotations and offsets inside attention.

Appendix D.4 of the paper compares them. Tokens are class, distillation, registers, then patches in
raster order; of those before the patches the first spec.position_prefix have a position.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitral.errors import ModelError
from vitral.specs import ModelSpec

Grid = tuple[int, int]
RULES: dict[str, dict[str, Any]] = {  # how each code base moves learned positions to another grid
    "google": {"mode": "bilinear", "align_corners": True},  # = scipy.ndimage.zoom(order=1)
    "timm": {"mode": "bicubic", "antialias": True},
    "transformers": {"mode": "bicubic"},
    "torchvision": {"mode": "bicubic", "align_corners": True},
    "flexivit": {"mode": "bilinear", "antialias": True},
}


class PositionContext(NamedTuple):
    """What attention is told where positions are not in the tokens themselves.

    `cos_sin` (2, N, head_width) holds cosines and sines for the last N queries and keys,
    `relative_index` (T, T) the row of the relative table for each query and key, negative for none.
    Where every image has patches of its own they are (2, B, 1, N, head_width) and (B, 1, T, T).
    """

    cos_sin: Tensor | None = None
    relative_index: Tensor | None = None

    def of(self, chosen: Tensor, prefix: int) -> "PositionContext":
        """The context of some of the tokens: (B, T) indices that begin with the whole prefix."""
        cos_sin, index = self.cos_sin, self.relative_index
        if cos_sin is not None:
            cos_sin = cos_sin[:, chosen[:, None, prefix:] - prefix]
        if index is not None:
            index = index[chosen[:, None, :, None], chosen[:, None, None, :]]
        return PositionContext(cos_sin, index)


def position_context(spec: ModelSpec, grid: Grid, like: Tensor) -> PositionContext | None:
    """What attention needs to know on that grid: a rotation, offsets, or nothing."""
    match spec.positions:
        case "relative" if grid != spec.grid:
            raise ModelError("Relative positions are offsets in one raster and cannot be resized.")
        case "relative":
            return PositionContext(relative_index=relative_index(spec, like))
        case "rope2d":
            return PositionContext(cos_sin=rotation(spec, grid, like))
        case _:
            return None


class Positions(nn.Module):
    """Tables that are added to the tokens (E_pos of equation 1): one, or one for every block."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec, (rows, columns), prefix = spec, spec.grid, spec.position_prefix
        tables, half = spec.depth if spec.positions_at == "every" else 1, spec.width // 2
        if spec.positions == "learned":
            self.table = nn.Parameter(torch.empty(tables, prefix + rows * columns, spec.width))
        if spec.positions == "learned2d":
            self.rows = nn.Parameter(torch.empty(tables, rows, half))
            self.columns = nn.Parameter(torch.empty(tables, columns, half))
            if prefix:
                self.prefix = nn.Parameter(torch.empty(tables, prefix, spec.width))

    def forward(self, grid: Grid, like: Tensor) -> Tensor:
        """(tables, T, width): one row per token, zero for a token without a position."""
        spec, learned = self.spec, self.on(grid)
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
        """The learned tables, resampled by spec.resample where the grid is another."""
        rule, (rows, columns) = self.spec.resample, self.spec.grid
        tables: dict[str, Tensor] = dict(self.named_parameters())
        if "table" in tables:
            prefix, patches = tables["table"].tensor_split([self.spec.position_prefix], dim=1)
            tables["table"] = torch.cat([prefix, resample(patches, (rows, columns), grid, rule)], 1)
        if "rows" in tables:
            tables["rows"] = resample(tables["rows"], (rows, 1), (grid[0], 1), rule)
            tables["columns"] = resample(tables["columns"], (1, columns), (1, grid[1]), rule)
        return tables


def resample(table: Tensor, old: Grid, new: Grid, rule: str) -> Tensor:
    """(tables, rows * columns, width) on another grid, by the rule of whoever made the weights."""
    if old == new:
        return table
    image = table.to(_precise(table)).unflatten(1, old).permute(0, 3, 1, 2)  # n (r c) d -> n d r c
    return F.interpolate(image, new, **RULES[rule]).flatten(2).transpose(1, 2).to(table.dtype)


def sincos2d(spec: ModelSpec, grid: Grid, like: Tensor) -> Tensor:
    """(1, N, width): [sin x, cos x, sin y, cos y] of the patch's column x and row y.

    big_vision's lowest frequency is exactly 1/10000, MAE's stops one step short of it.
    """
    quarter = spec.width // 4
    steps = quarter - (spec.positions == "sincos2d")
    count = torch.arange(max(quarter, *grid), device=like.device, dtype=_precise(like))
    angles = count.outer(10000.0 ** -(count[:quarter] / steps))
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)[None]
    return _joined(waves[:, : grid[1]], waves[:, : grid[0]]).to(like.dtype)


def rotation(spec: ModelSpec, grid: Grid, like: Tensor) -> Tensor:
    """DINOv3's axial rotation: cosines and sines of each patch's angles, (2, N, head_width).

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
    """The last N of (B, heads, T, head_width) turned; the tokens before the patches stay."""
    prefix, patches = x.tensor_split([x.shape[2] - cos_sin.shape[-2]], dim=2)
    first, second = patches.chunk(2, dim=-1)
    turned = patches * cos_sin[0] + torch.cat([-second, first], dim=-1) * cos_sin[1]
    return torch.cat([prefix, turned.to(x.dtype)], dim=2)


def relative_index(spec: ModelSpec, like: Tensor) -> Tensor:
    """(T, T): p_query - p_key as a row of the relative table, negative without a position."""
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
