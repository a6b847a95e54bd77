"""The reader of weights: a checkpoint of any format, or an artifact, as an artifact holds it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vitral.catalog.checkpoints import checkpoint
from vitral.data.decisions import Decision
from vitral.errors import UsageError, VitralError, WeightsError
from vitral.specs import ImageSpec, ModelSpec
from vitral.specs.fields import assign
from vitral.storage import files
from vitral.weights import (
    adapters,
    artifact,
    checkpoint_files,
    download,
    formats,
    names_in_settings,
)
from vitral.weights import one_logit as one_logits
from vitral.weights.adapters import Adapter
from vitral.weights.card import Card
from vitral.weights.checkpoint_files import Source
from vitral.weights.formats.base import Format
from vitral.weights.infer_spec import check_complete, detect_format, infer_spec, shape_from_changes
from vitral.weights.rename import Layout, Reading, RenameTable, tables
from vitral.weights.unwrap import UnusableHead, Wanted, unwrap

# tables whose classifiers have no hidden layer in their own program
POOLERS = ("transformers_vit", "transformers_deit", "transformers_deit_single")
FILE = ("part", "head", "labels")  # of weights.NAME, among what --set changes


NUMBERED = "nothing names the classes; they are numbered from 0"  # until --classes names them


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """A checkpoint as an artifact holds it, and the way back to its file.

    Attributes:
        tensors: the network's, in float32.
        card: the content of model.json.
        format: whose file it was; "vitral" for an artifact.
        layout: of the file that it was once read from; None for weights trained here.
        passthrough: tensors of that file that only its format uses.
        fitted: what was fitted to images after training, of an artifact that has it.
        source: the file as it was found; None for an artifact.
        ignored_keys: names of other networks in that file.
        notes: what the reader should know, a sentence each.
        decisions: what was assumed where the file does not tell.
        folder: the artifact that they lie in unchanged; None of any other.
        one_logit: whether the file's head has one logit, of which two classes were made.
    """

    tensors: Mapping[str, Tensor]
    card: Card
    format: str = "vitral"
    layout: Layout | None = None
    passthrough: Mapping[str, Tensor] = field(default_factory=dict)
    fitted: artifact.Arrays = field(default_factory=dict)
    source: checkpoint_files.Source | None = None
    ignored_keys: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = ()
    one_logit: bool = False
    folder: Path | None = None

    @property
    def as_stored(self) -> Weights:
        """The same with the head as the file has it, to compare with the file."""
        if not self.one_logit:
            return self
        model = replace(self.card.model, classes=1)
        card = replace(self.card, model=model, classes=self.card.classes[1:])
        return replace(self, tensors=one_logits.as_one(self.tensors), card=card, one_logit=False)


def read_weights(
    run: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    changes: Sequence[str] = (),
    announce: Callable[[str], None] = print,
    unusable_head: UnusableHead = "refuse",
    base: str | os.PathLike[str] | None = None,
) -> Weights:
    """Read a run or artifact folder, a checkpoint of any format, or published weights by id.

    `size` is (height, width) in pixels, `changes` such as "model.heads=6", for what the tensors do
    not tell; "weights.part=PREFIX" and "weights.head=NAME" choose among what a file holds,
    and "weights.labels=several" says that its classes do not exclude each other.
    `announce` is told of a download before it begins. `unusable_head` says whether a head that is
    no linear layer is an error, or left out, as a fine-tune may. `base` names the weights under the
    low-rank updates of peft, where these do not or they lie elsewhere.

    Raises WeightsError, with the reason in a sentence, for anything else.
    """
    path = Path(run)
    text = os.fspath(run)
    row = checkpoint(text)
    if not files.current(path).exists() and download.is_id(text):
        path = download.fetch(text, announce=announce)
        ours = artifact.is_card(path / artifact.CARD)
    else:
        ours = is_artifact(path)
    if ours:
        read = partial(_read_artifact, size=size, changes=changes)
        return files.read_folder(artifact.locate(path), read)
    if adapters.is_adapter(path):
        adapter = adapters.read(path)
        whole = _read_base(adapter, base, size, changes, announce)
        return _with_updates(adapter, whole, size, changes, unusable_head)
    if base is not None and path.exists():
        raise UsageError(
            f"--base is for the low-rank updates of peft, and {path} is no such folder."
        )
    source = checkpoint_files.read(path, formats.join)
    if row is not None and source.config is None:
        source = replace(source, config=formats.named(row.format).published_config(row.model))
    return read_source(source, size=size, changes=changes, unusable_head=unusable_head)


def read_source(
    source: Source,
    *,
    size: tuple[int, int] | None = None,
    changes: Sequence[str] = (),
    unusable_head: UnusableHead = "refuse",
) -> Weights:
    """Read tensors under the names of any format; the arguments are those of `read_weights`.

    Raises WeightsError, with the reason in a sentence, for anything else.
    """
    model = _of(changes, "model")
    shape = shape_from_changes(source, model)
    found = unwrap(source, _wanted(changes, unusable_head), shape)
    source = found.source
    table = detect_format(source)
    format = formats.named(table.format)
    source = replace(source, config=format.config_of(source))  # none of another program's
    reading = table.read(source.tensors, shape)
    dropped = _leave_out(reading, format, source, changes, unusable_head)
    check_complete(table, reading, source.path)
    spec = infer_spec(source, table, reading, size=size, changes=model)
    ours = {name: x.to(torch.float32).contiguous() for name, x in reading.ours.items()}
    artifact.check(ours, spec, source.path)
    images = _images(format, source, spec, found.images, _of(changes, "images"))
    card, more = _card(format, source, spec, images, changes)
    one_logit = card.model.classes > spec.classes
    notes = [*found.notes, *format.guesses(table, source, spec)]
    if assumed := format.assumed_preprocessing(source):
        notes.append(_assumed(assumed, images))
    return Weights(
        tensors=one_logits.as_two(ours) if one_logit else ours,
        card=card,
        format=table.format,
        layout=reading.layout,
        passthrough=reading.passthrough,
        source=source,
        ignored_keys=reading.ignored_keys,
        notes=(*notes, *more, *_notes(reading, ours, spec, dropped)),
        one_logit=one_logit,
        decisions=tuple(Decision("start", f"{note[0].upper()}{note[1:]}.") for note in notes),
    )


def _read_base(
    adapter: Adapter,
    base: str | os.PathLike[str] | None,
    size: tuple[int, int] | None,
    changes: Sequence[str],
    announce: Callable[[str], None],
) -> Weights:
    """The weights that updates were learnt on; the error for one that is not there says --base."""
    named = os.fspath(base or adapter.base)
    hint = f"Name it: vitral convert {adapter.path} OUT --base WEIGHTS."
    if not named:
        raise WeightsError(f"{adapter.path} holds updates and does not name their base. {hint}")
    beside = adapter.path / named
    place = str(beside) if beside.exists() else named
    try:
        return read_weights(
            place,
            size=None if is_artifact(Path(place)) else size,
            changes=changes,
            announce=announce,
            unusable_head="drop",
        )
    except VitralError as error:
        raise type(error)(f"The base of {adapter.path}: {error} {hint}") from None


def _with_updates(
    adapter: Adapter,
    base: Weights,
    size: tuple[int, int] | None,
    changes: Sequence[str],
    unusable_head: UnusableHead,
) -> Weights:
    """The base with the updates in its weights."""
    spec = base.card.model
    if base.source is not None and base.layout is not None:
        table = tables()[base.layout.table]
        merged, notes = adapters.merged(adapter, base.source, table)
    else:
        table, named = _in_words_of(adapter, base)
        merged, notes = adapters.merged(adapter, Source(path=adapter.path, tensors=named), table)
        changes = [
            f"model.{name}={json.dumps(x)}"
            for name, x in spec.to_dict().items()
            if name not in ("classes", "name", "size", "resnet")
        ]
        size = spec.size
    weights = read_source(merged, size=size, changes=changes, unusable_head=unusable_head)
    card = weights.card
    if base.source is None:  # which tells what a file leaves to be assumed
        weights = replace(weights, notes=weights.notes[len(weights.decisions) :], decisions=())
        same = card.model.classes == spec.classes
        card = replace(
            card,
            images=base.card.images,
            classes=base.card.classes if same else card.classes,
            labels=base.card.labels,
        )
    return replace(weights, card=card, notes=(*notes, *weights.notes))


def _in_words_of(adapter: Adapter, base: Weights) -> tuple[RenameTable, dict[str, Tensor]]:
    """The tensors of an artifact under the names in which updates speak of its layers."""
    spec = base.card.model
    names = sorted(formats.names(), key=lambda name: name == "dino")  # its names end as timm's
    kinds = [formats.named(name) for name in (formats.OWN, *names)]
    layouts = [kind.layout(tables()[kind.table_for(spec)], spec) for kind in kinds]
    found = []
    for layout in [*([] if base.layout is None else [base.layout]), *layouts]:
        table = tables()[layout.table]
        with suppress(WeightsError):  # a format that has no place for one of them
            found.append((table, table.write(base.tensors, spec.heads, layout, {})))
    fitting = (each for each in found if adapters.fits(adapter, each[1], each[0]))
    return next(fitting, found[0])


def _leave_out(
    reading: Reading,
    format: Format,
    source: Source,
    changes: Sequence[str],
    unusable_head: UnusableHead,
) -> list[str]:
    """Take out what is not wanted of a reading; WeightsError for a head that names no classes."""
    reason = format.refuse_head(source.config or {}) if "head.weight" in reading.ours else ""
    headless = _is_headless(changes) or bool(reason and unusable_head == "drop")
    if reason and not headless:
        raise WeightsError(
            f"{source.path}: {reason}, and Vitral's networks name classes. --set model.classes=0 "
            "takes the network without its head; vitral train --from leaves it behind by itself."
        )
    parts = ["head."] if headless else []
    if any(change.replace(" ", "") == "model.representation=0" for change in changes):
        parts.append("pre_logits.")
    dropped = [name for name in reading.ours if any(part in name for part in parts)]
    for name in dropped:
        del reading.ours[name]
    return dropped


def _card(
    format: Format,
    source: Source,
    spec: ModelSpec,
    images: ImageSpec,
    changes: Sequence[str],
) -> tuple[Card, list[str]]:
    """What an artifact says of the network, of two classes where the file has one logit; notes."""
    if not spec.classes:
        return Card(model=spec, images=images), []
    config = source.config or {}
    labels = _labels(format, config, changes)
    one_logit = spec.classes == 1 and labels == "one"
    notes = []
    names = format.classes(config, spec.classes)
    for count in (1, 2) if one_logit else (spec.classes,):
        if told := names_in_settings.find(source.settings, count):
            names, place = told
            notes = [f"the classes are named by the file's own settings ({place})"]
    if names is None:
        notes.append(NUMBERED)
    if one_logit:
        notes.append(
            "its head has one logit, whose sigmoid is the probability: it became two classes, the "
            "first with the logit 0, and their softmax is that sigmoid"
        )
        names = one_logits.names_of_two(names)
        spec = replace(spec, classes=2)
    numbers = tuple(str(i) for i in range(spec.classes))
    classes = numbers if names is None else names
    return Card(model=spec, images=images, classes=classes, labels=labels), notes


def _assumed(why: str, images: ImageSpec) -> str:
    """A note of the preprocessing that nothing told, with its values and how to say otherwise."""
    sentence = images.sentence.rstrip(".")
    mean = json.dumps([round(value, 3) for value in images.mean])
    return (
        f"{why} ({sentence[0].lower()}{sentence[1:]}); --set images.mean={mean.replace(' ', '')}, "
        "images.std, images.fit, images.crop or images.interpolation say otherwise"
    )


def _labels(
    format: Format, config: Mapping[str, Any], changes: Sequence[str]
) -> Literal["one", "several"]:
    """How many classes an image has: as asked, else as the configuration says."""
    match _of_file(changes)["labels"]:
        case "":
            return format.labels(config)
        case "one" | "several" as asked:
            return asked
        case other:
            raise UsageError(f"weights.labels is one or several, not '{other}'.")


def _is_headless(changes: Sequence[str]) -> bool:
    return any(change.replace(" ", "") == "model.classes=0" for change in changes)


def _wanted(changes: Sequence[str], unusable_head: UnusableHead) -> Wanted:
    """What is asked of a file with several networks or heads."""
    told = _of_file(changes)
    return Wanted(
        part=told["part"],
        head=told["head"],
        headless=_is_headless(changes),
        unusable_head=unusable_head,
    )


def _of_file(changes: Sequence[str]) -> dict[str, str]:
    """What is said of the file by weights.NAME=VALUE."""
    told = assign({"weights": dict.fromkeys(FILE, "")}, _of(changes, "weights"), "convert")
    return {name: str(value) for name, value in told["weights"].items()}


def _images(
    format: Format,
    source: Source,
    spec: ModelSpec,
    told: Mapping[str, Any],
    changes: Sequence[str],
) -> ImageSpec:
    """The preprocessing: the format's, what the file's buffers told, and what was asked."""
    images = replace(format.preprocessing(source, spec.size), size=spec.size).to_dict()
    values = assign({"images": {**images, **told}}, changes, "convert")
    return ImageSpec.from_dict(values["images"])


def _notes(
    reading: Reading,
    ours: Mapping[str, Tensor],
    spec: ModelSpec,
    dropped: Sequence[str],
) -> Iterator[str]:
    if dropped:
        part = "head" if any("head." in name for name in dropped) else "pooler"
        yield f"the {part} was left out ({', '.join(dropped)})"
    if {"pre_logits.weight", "head.weight"} <= ours.keys() and reading.layout.table in POOLERS:
        yield (
            "the head reads its pooler (a tanh layer), which transformers' own classifiers do not: "
            "--set model.representation=0 where the network read the class token"
        )
    if spec.positions in ("none", "sincos2d") and not spec.is_resnet:
        yield f"the file has no table of positions; model.positions={spec.positions} is taken"
    if reading.ignored_keys:
        yield f"{len(reading.ignored_keys)} tensors of other networks in the file were left out"
    if kinds := sorted(set(reading.layout.dtypes.values())):
        how = "rounded to" if "float64" in kinds else "exact in"
        yield f"stored as {', '.join(kinds)}; {how} float32"
    if "head.weight" in ours and not ours["head.weight"].any():
        yield (
            "the head is all zeros, as in the authors' ImageNet-21k files: it cannot classify "
            "until it is fine-tuned"
        )


def is_artifact(path: Path) -> bool:
    """Tell whether a path is a run folder or an artifact."""
    names = (artifact.CARD, "recipe.json", "best", "last")
    there = files.current(path)
    return there.is_dir() and any((there / name).exists() for name in names)


def _read_artifact(folder: Path, size: tuple[int, int] | None, changes: Sequence[str]) -> Weights:
    tensors, card = artifact.load_tensors(folder)
    if size is not None and size != card.model.size:
        raise UsageError("--size is for checkpoints that do not tell it; an artifact does.")
    layout = _layout(card, folder)
    named = {"model": card.model.to_dict(), "images": card.images.to_dict()}
    values = assign(named, changes, "convert")
    if ModelSpec.from_dict(values["model"]) != card.model:
        layout = None  # its names may tell what was changed
    card = replace(
        card,
        model=ModelSpec.from_dict(values["model"]),
        images=ImageSpec.from_dict(values["images"]),
        calibration=None if changes else card.calibration,  # of the logits before the change
    )
    artifact.check(tensors, card.model, folder)
    kept = folder / artifact.KEPT
    passthrough = checkpoint_files.read(kept).tensors if kept.exists() else {}
    return Weights(
        tensors=tensors,
        card=card,
        layout=layout,
        passthrough=passthrough,
        fitted={} if changes else artifact.load_fitted(folder),
        folder=None if changes else folder,
    )


def _layout(card: Card, folder: Path) -> Layout | None:
    """The layout that convert stored; None for weights trained here."""
    stored = card.made_by.get("layout")
    if stored is None:
        return None
    try:
        layout = Layout(**{**stored, "variants": tuple(stored["variants"])})
        table = tables()[layout.table]
        kinds = [getattr(torch, kind) for kind in layout.dtypes.values()]
        known = set(layout.variants) <= set(table.variants)
        known &= layout.prefix in ("", table.prefix, *table.prefixes)
    except (AttributeError, KeyError, TypeError):
        known = False
        kinds = []
    if not known or not all(isinstance(kind, torch.dtype) for kind in kinds):
        raise WeightsError(
            f"{folder / artifact.CARD}: made_by.layout is not what convert wrote; restore the "
            "file, or set it to null."
        )
    return layout


def _of(changes: Sequence[str], part: str) -> list[str]:
    """The changes of one part; UsageError for a change of neither."""
    for change in changes:
        if not change.strip().startswith(("model.", "images.", "weights.")):
            raise UsageError(f"--set changes model.NAME or images.NAME, not '{change}'.")
    return [change for change in changes if change.strip().startswith(f"{part}.")]
