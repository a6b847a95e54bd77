"""The conversion of weights from any format into Vitral and back, with a proof.

convert(SRC, DST) writes an artifact or another format's files, and says what was checked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitral.data import class_names
from vitral.errors import UsageError, WeightsError
from vitral.storage import files
from vitral.weights import artifact, checkpoint_files, formats, parity
from vitral.weights.axes import Shape, to_theirs
from vitral.weights.formats.base import NotComparableError
from vitral.weights.read import NUMBERED, Weights, read_weights
from vitral.weights.rename import RenameTable, tables
from vitral.weights.write import as_learned_table, layout_for, table_for, with_zero_rows

TOLERANCE = 1e-3  # of the largest logit; a wrong choice shows far above it, rounding far below


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversionReport:
    """The record of what a conversion checked.

    Attributes:
        source, target: paths; format and to: whose files they are.
        model: the network's name.
        tensors, bytes: of the file that was read; left_over: names without a place, always 0.
        exact: whether the file's own tensors came back bit for bit; None for an artifact.
        difference: max |delta logit| on random images between our network and each format's
            library; largest: max |logit| there.
        not_compared: why not, by format.
        notes: sentences.
    """

    source: str
    target: str
    format: str
    to: str
    model: str
    tensors: int
    bytes: int
    left_over: int = 0
    exact: bool | None = None
    difference: Mapping[str, float] = field(default_factory=dict)
    largest: Mapping[str, float] = field(default_factory=dict)
    not_compared: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; the key of the format is `home`."""
        return {"home" if key == "format" else key: value for key, value in asdict(self).items()}


def convert(  # noqa: PLR0913 - one argument per option of the command
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    to: str = "vitral",
    size: tuple[int, int] | None = None,
    changes: Sequence[str] = (),
    classes: str | os.PathLike[str] | None = None,
    announce: Callable[[str], None] = print,
    base: str | os.PathLike[str] | None = None,
) -> ConversionReport:
    """Write the weights at `source` as the format `to` has them, at `target`, with a proof beside.

    `source` is whatever `read_weights` takes, with the same `size`, `changes`, `announce` and
    `base`.
    `to` is "vitral" (an artifact folder) or one of `formats.names()`.
    `target` is a new folder, or a new file whose suffix says the format. `classes` is a file of
    class names for the logits.

    Raises WeightsError for what cannot be read, what the format cannot express, and a difference
    between the two libraries' logits; UsageError for a target that exists. Nothing is written then.
    """
    target = Path(target)
    _check_target(target, to)
    weights = read_weights(source, size=size, changes=changes, announce=announce, base=base)
    if classes is not None:
        weights = _named(weights, classes)
    done = _started(source, target, to, weights)
    if weights.source is not None and weights.layout is not None:
        table = tables()[weights.layout.table]
        done = _compared(done, weights.as_stored, table, weights.source.config)
    if to == "vitral":
        made_by = {"converted": done.to_dict()}
        if weights.layout is not None:
            made_by["layout"] = asdict(weights.layout)
        if weights.fitted and "fitted" in weights.card.made_by:  # to which images
            made_by["fitted"] = weights.card.made_by["fitted"]
        card = replace(weights.card, made_by=made_by)
        artifact.save(target, weights.tensors, card, weights.passthrough, weights.fitted)
        return done
    weights, fixed = as_learned_table(weights, to)
    table = table_for(to, weights.card.model, weights.layout)
    settled, added = with_zero_rows(weights, table)
    own = weights.layout is not None and weights.layout.table == table.name
    weights = weights if own else settled  # a file of the format had the rows that it had
    notes = fixed if own else fixed + added
    notes += tuple(formats.named(to).preprocessing_differences(weights.card.images))
    done = _compared(replace(done, notes=(*done.notes, *notes)), weights, table, None)
    _write(target, weights, table, done)
    return done


def _named(weights: Weights, file: str | os.PathLike[str]) -> Weights:
    """The weights with the class names of a file, and a note of how it was read."""
    names = class_names.read(Path(file))
    named = class_names.for_logits(names, weights.card.model.classes)
    kept = [note for note in weights.notes if note != NUMBERED]
    notes = [*kept, f"classes are named by {names.path}"]
    if order := class_names.order_of(names):
        notes.append(order)
    return replace(weights, card=replace(weights.card, classes=named), notes=tuple(notes))


def _started(source: object, target: Path, to: str, weights: Weights) -> ConversionReport:
    tensors = weights.tensors if weights.source is None else weights.source.tensors
    return ConversionReport(
        source=str(source),
        target=str(target),
        format=weights.format,
        to=to,
        model=weights.card.model.name,
        tensors=len(tensors) - len(weights.ignored_keys),
        bytes=sum(x.numel() * x.element_size() for x in tensors.values()),
        exact=_comes_back(weights.as_stored),
        notes=weights.notes,
    )


def _comes_back(weights: Weights) -> bool | None:
    """Whether writing what was read gives the file's tensors bit for bit; None for an artifact."""
    if weights.source is None or weights.layout is None:
        return None
    table = tables()[weights.layout.table]
    spec = weights.card.model
    back = table.write(weights.tensors, spec.heads, weights.layout, weights.passthrough)
    there = {
        name: x for name, x in weights.source.tensors.items() if name not in weights.ignored_keys
    }
    return set(back) == set(there) and all(
        back[name].dtype == x.dtype and torch.equal(back[name], x) for name, x in there.items()
    )


def _compared(
    begun: ConversionReport, weights: Weights, table: RenameTable, config: Mapping[str, Any] | None
) -> ConversionReport:
    """The proof with one more library's logits."""
    weights, _ = with_zero_rows(weights, table)
    spec = weights.card.model
    format = table.format
    foreign = [name for name, rule in table.passthrough.items() if rule == "nothing"]
    filler = {
        name: x
        for name, x in _filler(weights, table).items()
        if not any(fnmatchcase(name, pattern) for pattern in foreign)
    }
    theirs = table.write(weights.tensors, spec.heads, layout_for(table, spec), filler)
    if config is None:
        try:
            written = formats.named(format).config_files(weights.card, table)
        except WeightsError:  # a network without a name there; its tensors alone can be written
            written = {}
        config = written.get("config.json")
    try:
        delta, largest = parity.difference(table, spec, weights.tensors, theirs, config or {})
    except NotComparableError as reason:
        return replace(begun, not_compared={**begun.not_compared, format: str(reason)})
    if not delta <= TOLERANCE * max(largest, 1.0):
        raise WeightsError(
            f"{begun.source}: {format}'s own network answers differently with these tensors (max "
            f"|delta logit| {delta:.2g} of {largest:.2g}), so the conversion is wrong. Nothing was "
            "written. Please report it with the file."
        )
    return replace(
        begun,
        difference={**begun.difference, format: delta},
        largest={**begun.largest, format: largest},
    )


def _filler(weights: Weights, table: RenameTable) -> dict[str, Tensor]:
    """Tensors that only the format has: those that came from it, or zeros where it wants some."""
    if weights.layout is not None and weights.layout.table == table.name:
        return dict(weights.passthrough)
    made = {}
    width = weights.card.model.width
    shape = Shape(wide=layout_for(table, weights.card.model).wide)
    for name, rule in table.passthrough.items():
        if rule.startswith("zeros"):
            sides = [width if side == "W" else int(side) for side in rule.split()[1:]]
            made[name] = torch.zeros(sides)
    for row in table.rows:
        if row.ours in table.empty and row.ours not in weights.tensors:
            made[row.theirs[0]] = to_theirs(row.axes, torch.zeros(1, 0, width), shape)
    return made


def _check_target(target: Path, to: str) -> None:
    """UsageError for a format, a place or a suffix that cannot be written."""
    known = () if to == "vitral" else formats.named(to).suffixes
    files.refuse_existing(target)
    if target.suffix not in checkpoint_files.SUFFIXES or target.suffix in known:
        return
    if to == "vitral":
        raise UsageError("An artifact is a folder; leave the suffix out, or say --to FORMAT.")
    raise UsageError(
        f"{to} does not read {target.suffix}: its checkpoints are {', '.join(known)} files. "
        f"Give a new folder, or NAME{known[0]}."
    )


def _write(target: Path, weights: Weights, table: RenameTable, done: ConversionReport) -> None:
    """Write a folder with its configuration and the proof, or one file with the proof beside it."""
    spec = weights.card.model
    layout = weights.layout
    if layout is None or layout.table != table.name:
        layout = layout_for(table, spec)
    tensors = table.write(weights.tensors, spec.heads, layout, _filler(weights, table))
    if target.suffix in checkpoint_files.SUFFIXES:
        _write_tensors(target, tensors)
        files.write_json(target.with_name(target.name + ".proof.json"), done.to_dict())
        return
    suffix = formats.named(table.format).suffixes[0]
    written = formats.named(table.format).config_files(weights.card, table)

    def fill(fresh: Path) -> None:
        for name, part in formats.named(table.format).split(tensors).items():
            _write_tensors(fresh / f"{name}{suffix}", part)
        for name, values in written.items():
            files.write_json(fresh / name, values)
        files.write_json(fresh / "proof.json", done.to_dict())

    files.write_folder(target, fill, needed=files.bytes_of(tensors))


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a whole file in the format that its suffix names."""
    needed = files.bytes_of(tensors)
    match path.suffix:
        case ".npz":
            arrays = {name: _array(x) for name, x in tensors.items()}
            files.write_arrays(path, arrays, compressed=False)
        case ".safetensors":
            fill = partial(files.write_tensors, tensors=tensors, metadata={"format": "pt"})
            files.write_file(path, fill, needed)
        case _:
            copies = {name: x.clone() for name, x in tensors.items()}  # no view brings its whole
            files.write_file(path, partial(torch.save, copies), needed)


def _array(x: Tensor) -> np.ndarray:
    """bfloat16 as two void bytes, which is how Google's files hold it."""
    if x.dtype == torch.bfloat16:
        return x.view(torch.int16).numpy().view("V2")
    return x.numpy()
