"""The rename tables (formats/tables/*.toml): tensors of other formats under our names, and back.

A row says which of their tensors make one of ours. Several are joined along the first axis (q, k
and v); "0" stands for a part that is zero and absent; `axes` says how the axes differ. Everything
else a table says is explained at the fields of RenameTable.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache, partial
from importlib.resources import files
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vitral.errors import WeightsError
from vitral.weights.axes import UNTOLD, Shape, is_wide, to_ours, to_theirs
from vitral.weights.patterns import filled, numbers_in, rewritten

Tensors = dict[str, Tensor]
# what a format's code can run where its table says nothing of these
USUAL: Mapping[str, list[Any]] = {
    "patch_norms": [False],
    "out_projection": [True],
    "biases": ["all", "no_qkv", "none"],
    "pool": ["cls", "mean", "map"],
    "pool_blocks": [1],
}


class KeyMap(NamedTuple):
    """A row of a table: one of our tensors, and theirs that make it."""

    ours: str
    theirs: tuple[str, ...]
    axes: str
    parts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The differences of a file from its table's own names, so that it can be made again.

    Attributes:
        table: the table that reads it.
        prefix: before every name.
        variants: the table's variants whose names it uses.
        stacked: whether the blocks are one tensor with a leading axis.
        wide: whether tensors that some files hold with further axes of length 1 have them.
        dtypes: of their tensors that are not float32; {"*": dtype} if all are alike.
    """

    table: str
    prefix: str = ""
    variants: tuple[str, ...] = ()
    stacked: bool = False
    wide: bool = False
    dtypes: Mapping[str, str] = field(default_factory=dict)

    def dtype(self, name: str) -> torch.dtype:
        """Return the type that their tensor of that name was stored in."""
        return getattr(torch, self.dtypes.get(name, self.dtypes.get("*", "float32")))


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """The tensors and names that a table made of a file.

    Attributes:
        ours: tensors under our names, in their own precision.
        unexpected_keys: names that no row knows.
        missing_keys: parts of a row whose other parts are there.
        passthrough: tensors that our networks do not have and that go back as they came.
        ignored_keys: names of other networks in the same file (a text tower).
        facts: fields of ModelSpec that the names and axes alone tell.
        layout: how to make the same file again.
    """

    ours: Tensors
    unexpected_keys: tuple[str, ...]
    missing_keys: tuple[str, ...]
    passthrough: Tensors
    ignored_keys: tuple[str, ...]
    facts: Mapping[str, Any]
    layout: Layout


@dataclass(frozen=True, kw_only=True, slots=True)
class RenameTable:
    """A rename table, one file of formats/tables/.

    Attributes:
        name, format: "timm_vit" is a table of the format "timm".
        markers, absent: names that a file of this kind has, and has not.
        overrides: another table that also fits such a file.
        rows: the names.
        variants: other names that some files use for the same tensors, each a beginning (one that
            ends in "." or "/") or a whole name; `facts` are what their use tells.
        prefixes, bare, prefix: what may stand before every name, but not before `bare`; `prefix`
            is written under a head.
        ignored: names of other networks in the same file.
        stacked: the name whose blocks may be one tensor with a leading axis.
        defaults: fields of ModelSpec that the format's code fixes, or takes where tensors do not
            tell.
        supports: values of ModelSpec's fields that the format's code can run; those of USUAL
            where the file says nothing.
        passthrough: tensors that our networks do not have, by name or pattern: "nothing", or
            "zeros SHAPE" to write where there are none.
        empty: of ours, written with no rows where there are none.
        prefix_rows: how a class token whose position the format stores otherwise is written:
            "zero" adds a row of zeros, "folded" adds the row into the token beside registers.
        transformer: whether it is of a network with blocks, and not of a whole ResNet.
        square, headless: whether images and patches must be square; whether a head may be absent.
        head_width: of one head, in its program, unless it is told otherwise; 0 is none.
        free_head_width: whether the heads together may have another width than a token.
        pre_logits_or_head: whether there cannot be both.
        architectures: its program's words for the network, with a head and without.
        head_reads: how many times the width its head may read; any number where empty.
    """

    name: str
    format: str
    markers: tuple[str, ...]
    rows: tuple[KeyMap, ...]
    defaults: Mapping[str, Any]
    supports: Mapping[str, Any]
    absent: tuple[str, ...] = ()
    overrides: str = ""
    variants: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prefixes: tuple[str, ...] = ()
    prefix: str = ""
    bare: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    stacked: str = ""
    passthrough: Mapping[str, str] = field(default_factory=dict)
    empty: tuple[str, ...] = ()
    prefix_rows: str = ""
    transformer: bool = True
    square: bool = False
    head_width: int = 0
    free_head_width: bool = False
    headless: bool = True
    pre_logits_or_head: bool = False
    architectures: tuple[str, ...] = ()
    head_reads: tuple[int, ...] = ()

    def named(self, tensors: Mapping[str, Tensor]) -> tuple[Tensors, Layout, list[str]]:
        """Return the tensors under the table's own names, the layout, and other networks' names."""
        ignored = [k for k in tensors if any(fnmatchcase(k, pattern) for pattern in self.ignored)]
        file = {k: x for k, x in tensors.items() if k not in ignored}
        prefix = next((p for p in self.prefixes if any(k.startswith(p) for k in file)), "")
        file = _renamed(file, lambda k: k.removeprefix(prefix))
        stacked = bool(self.stacked) and any(k.startswith(f"{self.stacked}/") for k in file)
        if stacked:
            file = _unstacked(file, self.stacked)
        used = []
        for variant, pairs in self.variants.items():
            renamed = _renamed(file, partial(rewritten, pairs=pairs))
            if renamed.keys() != file.keys():
                used.append(variant)
                file = renamed
        layout = Layout(table=self.name, prefix=prefix, variants=tuple(used), stacked=stacked)
        return file, layout, ignored

    def fits(self, tensors: Mapping[str, Tensor]) -> bool:
        """Tell whether these look like tensors of this table."""
        file = self.named(tensors)[0]
        if not all(k in file for k in self.markers) or any(k in file for k in self.absent):
            return False
        if not self.head_reads:
            return True
        head, patches = (file.get(self.their_name(k)) for k in ("head.weight", "patches.weight"))
        if head is None or patches is None or head.ndim < 2 or not patches.ndim:
            return True  # another error says what is wrong
        return any(head.shape[1] == times * len(patches) for times in self.head_reads)

    def their_name(self, ours: str) -> str:
        """Return the only name of a tensor of ours; "" where the format has none."""
        rows = (row for row in self.rows if row.ours == ours and len(row.theirs) == 1)
        return next((row.theirs[0] for row in rows), "")

    def read(self, tensors: Mapping[str, Tensor], shape: Shape = UNTOLD) -> Reading:
        """Return their tensors under our names; `shape` is what was told of patches."""
        file, layout, ignored = self.named(tensors)
        empty = {name for row in self.rows if row.ours in self.empty for name in row.theirs}
        passthrough = {
            k: x
            for k, x in file.items()
            if (k in empty and not x.numel())
            or any(fnmatchcase(k, pattern) for pattern in self.passthrough)
        }
        pieces: dict[str, dict[int, Tensor]] = {}
        rows: dict[str, KeyMap] = {}
        unexpected = []
        wide = False
        facts: dict[str, Any] = {}
        for name, tensor in file.items():
            if name in passthrough:
                continue
            match = _match(self.rows, name)
            if match is None:
                unexpected.append(name)
                continue
            row, part, our_name = match
            heads = tensor.shape[1] if row.axes == "heads_in" and tensor.ndim == 3 else None
            if heads and heads != facts.setdefault("heads", heads):
                raise WeightsError(f"'{name}' has {heads} heads, the others {facts['heads']}.")
            wide |= is_wide(row.axes, tensor)
            pieces.setdefault(our_name, {})[part] = to_ours(row.axes, tensor, name, shape)
            rows[our_name] = row
        ours: Tensors = {}
        missing = []
        for our_name, parts in pieces.items():
            theirs = rows[our_name].theirs
            gone = [k for part, k in enumerate(theirs) if part not in parts and k != "0"]
            if gone:
                values = numbers_in(rows[our_name].ours, our_name) or {}
                missing.append(f"{', '.join(filled(k, values) for k in gone)} of {our_name}")
            else:
                ours[our_name] = _joined(our_name, parts, len(theirs))
        for variant in layout.variants:
            facts |= self.facts.get(variant, {})
        layout = replace(layout, wide=wide, dtypes=_dtypes(tensors, ignored))
        return Reading(
            ours=ours,
            unexpected_keys=tuple(unexpected),
            missing_keys=tuple(missing),
            passthrough={k: x.clone() for k, x in passthrough.items()},
            ignored_keys=tuple(ignored),
            facts=facts,
            layout=layout,
        )

    def write(
        self,
        ours: Mapping[str, Tensor],
        heads: int,
        layout: Layout,
        passthrough: Mapping[str, Tensor],
    ) -> Tensors:
        """Return our tensors as a file of that layout holds them: the inverse of read."""
        file: Tensors = {}
        shape = Shape(heads=heads, wide=layout.wide)
        if "patches.weight" in ours:
            _, channels, height, width = ours["patches.weight"].shape
            shape = shape._replace(channels=channels, patch=(height, width))
        for name, tensor in ours.items():
            match = _match(self.rows, name, by_ours=True)
            if match is None:
                raise WeightsError(f"{self.format} has no place for the tensor '{name}'.")
            row, _, _ = match
            values = numbers_in(row.ours, name)
            for theirs, piece in zip(row.theirs, _pieces(row, tensor), strict=True):
                if theirs != "0":
                    back = to_theirs(row.axes, piece, shape)
                    file[filled(theirs, values or {})] = back
                elif piece.any():
                    raise WeightsError(
                        f"{self.format} has no place for a part of '{name}' (the bias of the "
                        "keys), and here it is not zero."
                    )
        file |= passthrough
        for variant in reversed(layout.variants):
            back_pairs = {our_name: theirs for theirs, our_name in self.variants[variant].items()}
            file = {rewritten(k, back_pairs): x for k, x in file.items()}
        if layout.stacked:
            file = _stacked(file, self.stacked)
        return {
            name: x.to(layout.dtype(name)).contiguous()
            for k, x in file.items()
            for name in [k if k.startswith(self.bare) else layout.prefix + k]
        }


@cache
def tables() -> dict[str, RenameTable]:
    """Read every table, by name."""
    folder = files("vitral.weights.formats").joinpath("tables")
    by_name = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.name.endswith(".toml"):
            name = path.name.removesuffix(".toml")
            values = tomllib.loads(path.read_text(encoding="utf-8"))
            rows = tuple(row for ours in values["names"].items() for row in _rows(*ours))
            del values["names"]
            supports = values["supports"]
            values["supports"] = {**supports, **USUAL, **supports}
            fields: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            by_name[name] = RenameTable(name=name, rows=rows, **fields)
    return by_name


def fitting_tables(tensors: Mapping[str, Tensor]) -> list[RenameTable]:
    """Find the tables that fit: none, one, or several between which the names do not decide."""
    fitting = {name: table for name, table in tables().items() if table.fits(tensors)}
    beaten = {table.overrides for table in fitting.values()}
    return [table for name, table in fitting.items() if name not in beaten]


def _rows(ours: str, value: str | dict[str, Any]) -> list[KeyMap]:
    """A row of the file; "*" stands for weight and bias."""
    values = {"from": value} if isinstance(value, str) else value
    theirs = values["from"]
    theirs = (theirs,) if isinstance(theirs, str) else tuple(theirs)
    parts = tuple(values.get("parts", [1] * len(theirs)))
    leaves = ("weight", "bias") if ours.endswith("*") else ("",)
    return [
        KeyMap(
            ours.replace("*", leaf),
            tuple(name.replace("*", leaf) for name in theirs),
            values.get("axes", ""),
            parts,
        )
        for leaf in leaves
    ]


def _match(
    rows: tuple[KeyMap, ...], name: str, by_ours: bool = False
) -> tuple[KeyMap, int, str] | None:
    """The row of a name, which of its parts it is, and our name."""
    for row in rows:
        for part, pattern in enumerate((row.ours,) if by_ours else row.theirs):
            values = numbers_in(pattern, name)
            # a name must be the one that its numbers make: unit1 is not unit01
            if values is not None and filled(pattern, values) == name:
                return row, part, filled(row.ours, values)
    return None


def _joined(name: str, parts: Mapping[int, Tensor], count: int) -> Tensor:
    """The parts one after the other; zeros for one that is absent by rule."""
    like = next(iter(parts.values()))
    shapes = {(x.ndim, tuple(x.shape[1:]), x.dtype) for x in parts.values()}
    if len(shapes) > 1 or like.ndim == 0:
        raise WeightsError(
            f"The parts of {name} do not belong together: their shapes are "
            f"{', '.join(str(tuple(x.shape)) for x in parts.values())}."
        )
    whole = [parts.get(part, torch.zeros_like(like)) for part in range(count)]
    return torch.cat(whole) if count > 1 else like


def _pieces(row: KeyMap, tensor: Tensor) -> tuple[Tensor, ...]:
    if len(row.theirs) == 1:
        return (tensor,)
    unit = len(tensor) // sum(row.parts)
    return tensor.split([unit * part for part in row.parts])


def _renamed(tensors: Mapping[str, Tensor], rename: Callable[[str], str]) -> Tensors:
    """The tensors under other names; as they were if two would come under the same."""
    renamed = {rename(name): x for name, x in tensors.items()}
    return renamed if len(renamed) == len(tensors) else dict(tensors)


def _unstacked(tensors: Mapping[str, Tensor], block: str) -> Tensors:
    single: Tensors = {}
    for name, tensor in tensors.items():
        rest = name.removeprefix(f"{block}/")
        if rest == name or not tensor.ndim:
            single[name] = tensor
        else:
            single |= {f"{block}_{i}/{rest}": x for i, x in enumerate(tensor)}
    return single


def _stacked(tensors: Mapping[str, Tensor], block: str) -> Tensors:
    whole: Tensors = {}
    layers: dict[str, dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        numbered = re.fullmatch(rf"{re.escape(block)}_(\d+)/(.+)", name)
        if numbered:
            layers.setdefault(f"{block}/{numbered[2]}", {})[int(numbered[1])] = tensor
        else:
            whole[name] = tensor
    return whole | {k: torch.stack([x[i] for i in range(len(x))]) for k, x in layers.items()}


def _dtypes(tensors: Mapping[str, Tensor], ignored: list[str]) -> dict[str, str]:
    kinds = {k: str(x.dtype).removeprefix("torch.") for k, x in tensors.items() if k not in ignored}
    if len(set(kinds.values())) == 1:
        kind = next(iter(kinds.values()))
        return {} if kind == "float32" else {"*": kind}
    return {name: kind for name, kind in kinds.items() if kind != "float32"}
