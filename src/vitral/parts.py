"""Answer for millions of images in tar shards: one parquet file for each shard, whoever writes it.

    DIR/parts.json           what the parts are of: model, images, settings
    DIR/train-0000.parquet   of train-0000.tar: a row for each image, in its order

A part is computed whole and appears at once; one that is there is not computed again. So any number
of processes, on one machine or many that see DIR, each take their share of the shards, and what a
killed one left undone is done by the next start.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from filelock import FileLock

from vitral.answers import AnswerRequest, Computed, answers_of
from vitral.classifier import Classifier
from vitral.data.loader import Batch, eval_batches, eval_workers
from vitral.data.sources import ScanResult, Split
from vitral.data.tar_shards import find_shards, read_shard
from vitral.errors import DataError, MachineError, ModelError, UsageError
from vitral.evaluation import Evaluation, evaluate
from vitral.evaluation.score import ForeignShare
from vitral.images import preprocess
from vitral.storage import files
from vitral.weights import digest
from vitral.wording import listed

SETTINGS = "parts.json"
FORMAT = "vitral parts 1"
PATIENCE = 2.0  # seconds between looks for the parts of other processes
Columns = dict[str, list[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A question to every image.

    Attributes:
        verb: the command that asks it.
        options: what it was asked with, plain JSON values.
        columns: the names of its columns.
        compute: called with the classifier, normalised images and their names.
    """

    verb: str
    columns: tuple[str, ...]
    compute: Callable[[Classifier, Any, Sequence[str]], Columns]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a process among all that write parts: its number from 0, and how many."""

    rank: int = 0
    world: int = 1

    @classmethod
    def of_environment(cls) -> Place:
        """Read what torchrun says; UsageError where its variables are incomplete."""
        world = os.environ.get("WORLD_SIZE", "1")
        rank = os.environ.get("RANK", "" if world != "1" else "0")
        if not (world.isdecimal() and rank.isdecimal() and int(rank) < int(world)):
            raise UsageError(
                f"WORLD_SIZE is '{world}' and RANK is '{rank}': start the processes with torchrun, "
                f"or with --devices."
            )
        return cls(int(rank), int(world))


@dataclass(frozen=True, slots=True)
class Parts:
    """A folder of parts, and the shards that they are of.

    Attributes:
        folder: where the parts are.
        shards: every shard; `names` are those of their parts.
        class_numbers: the names of class numbers, where the source has them.
    """

    folder: Path
    shards: tuple[str, ...]
    names: tuple[str, ...]
    class_numbers: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: str, folder: Path, *, held_out: bool = False) -> Parts:
        """Name the parts of a source, or of its held-out shards; DataError where it has none."""
        shards, class_numbers = find_shards(source, held_out=held_out)
        return cls(folder, shards, _part_names(shards), class_numbers)

    def path(self, index: int) -> Path:
        """Return where the part of a shard is, or will be."""
        return self.folder / self.names[index]

    def missing(self) -> list[int]:
        """List the shards whose parts are not there."""
        return [index for index in range(len(self.shards)) if not self.path(index).exists()]


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """The work of one process.

    Attributes:
        parts: how many it computed; there: how many of its share were there before.
        rows: images of the parts that it computed; unreadable: how many of those cannot be read.
        seconds: how long it took.
    """

    parts: int
    there: int
    rows: int
    unreadable: int
    seconds: float


def settings_of(classifier: Classifier, job: Job, batch: int) -> dict[str, Any]:
    """Say what the parts of a job are computed by; equal settings give equal parts."""
    card = {k: v for k, v in classifier.card.to_dict().items() if k not in ("made_by", "metrics")}
    return {
        "format": FORMAT,
        "verb": job.verb,
        "network": digest.of_tensors(classifier.model.state_dict(), classifier.card.model),
        "engine": classifier.engine.name,
        "precision": str(getattr(classifier.engine, "precision", "")),
        "merge": list(classifier.merge),
        "card": json.loads(json.dumps(card)),
        "options": {**job.options, "batch": batch},
    }


def agree(folder: Path, settings: Mapping[str, Any]) -> None:
    """Keep the settings in the folder, or compare them with those that it has.

    Raises UsageError for a folder of another content, or whose parts were made by other settings.
    """
    arrow()
    place = folder / SETTINGS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{SETTINGS}.lock"):
            if not place.exists():
                own = [child.name for child in folder.iterdir() if not child.name.startswith(".")]
                if own:
                    raise UsageError(
                        f"{folder} is there and holds {own[0]}, which is no part: name a new "
                        f"folder with --out."
                    )
                files.write_json(place, dict(settings))
                return
            found = json.loads(place.read_text(encoding="utf-8"))
    except OSError as error:
        raise files.write_error(error, folder) from None
    except ValueError:
        found = {}
    known = found if isinstance(found, dict) else {}
    differing = [key for key in settings if known.get(key) != settings[key]]
    if differing:
        raise UsageError(
            f"{folder} holds parts made with another {differing[0]}; write into a new folder, or "
            f"ask for the same again."
        )


def write(
    classifier: Classifier,
    parts: Parts,
    job: Job,
    *,
    place: Place,
    batch: int = 64,
    tick: Callable[[int, int], object] | None = None,
    note: Callable[[str], None] = print,
) -> Written:
    """Write the parts that are missing of a process's share of the shards.

    `tick` is told how many shards of the share are done, of how many; `note` what was damaged.
    Raises MachineError for a disk that is full, DataError for a shard that is not there.
    """
    began = time.monotonic()
    share = range(place.rank, len(parts.shards), place.world)
    done = 0
    rows = 0
    unreadable = 0
    for number, index in enumerate(share):
        if tick is not None:
            tick(number, len(share))
        if parts.path(index).exists():
            continue
        columns = _columns(classifier, parts, index, job, batch, note)
        widths = {
            "embedding": classifier.card.model.read_width,
            "logits": len(classifier.classes),
        }
        _write_part(parts.path(index), columns, widths, parts.shards[index])
        done += 1
        rows += len(columns["error"])
        unreadable += sum(error is not None for error in columns["error"])
    if tick is not None:
        tick(len(share), len(share))
    return Written(
        parts=done,
        there=len(share) - done,
        rows=rows,
        unreadable=unreadable,
        seconds=time.monotonic() - began,
    )


def wait(parts: Parts) -> None:
    """Wait until other processes have written their parts; a launcher ends who waits in vain."""
    while parts.missing():
        time.sleep(PATIENCE)


def read(parts: Parts, columns: list[str] | None = None) -> Iterator[Any]:
    """Read every part, or some columns, a pyarrow.Table each, in the order of the shards."""
    _, parquet = arrow()
    for index in range(len(parts.shards)):
        try:
            yield parquet.read_table(parts.path(index), columns=columns)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{parts.path(index)} cannot be read ({error}); remove it, and the same command "
                f"computes it again."
            ) from None


def embedding() -> Job:
    """Ask what the head reads of each image."""

    def compute(classifier: Classifier, images: Any, names: Sequence[str]) -> Columns:
        vectors = classifier.engine.representation(images)
        if not np.isfinite(vectors).all():
            raise ModelError(
                "The model gives numbers that are not finite: its weights are damaged."
            )
        return {"embedding": list(vectors)}

    return Job(verb="embed", columns=("embedding",), compute=compute)


def answers(request: AnswerRequest, *, several: bool) -> Job:
    """Ask for the class of each image; for all its classes where it may have several."""
    told = ("label", "score", "unsure", "foreign", "foreign_score")
    lists = ("labels",) if several else ()

    def compute(classifier: Classifier, images: Any, names: Sequence[str]) -> Columns:
        logits, distances = classifier.outputs(images)
        computed = Computed(logits=logits, distances=distances)
        found = answers_of(classifier.card, computed, names, request)
        rows = [answer.to_dict() for answer in found]
        columns: Columns = {name: [row.get(name) for row in rows] for name in (*told, *lists)}
        columns["top"] = [[label for label, _ in answer.top] for answer in found]
        columns["top_scores"] = [[float(score) for _, score in answer.top] for answer in found]
        return columns

    return Job(
        verb="predict",
        columns=(*told, *lists, "top", "top_scores"),
        compute=compute,
        options={"top": request.top},
    )


def outputs() -> Job:
    """Ask for what an evaluation counts by: logits, and how foreign each image is."""

    def compute(classifier: Classifier, images: Any, names: Sequence[str]) -> Columns:
        logits, distances = classifier.outputs(images)
        far = [None] * len(names) if distances is None else [float(each) for each in distances]
        return {"logits": list(logits), "distance": far}

    return Job(verb="evaluate", columns=("logits", "distance"), compute=compute)


def evaluation(classifier: Classifier, parts: Parts) -> tuple[Evaluation, int]:
    """Score all images of finished parts, and count those that cannot be read.

    The figures are those of one process. Raises DataError for classes that the model does not know.
    """
    index = {name: number for number, name in enumerate(classifier.classes)}
    several = classifier.task.multi_label
    logits: list[Any] = []
    labels: list[Any] = []
    names: list[str] = []
    foreign = 0
    unreadable = 0
    for table in read(parts):
        for row in table.to_pylist():
            if row["error"] is not None:
                unreadable += 1
                continue
            unknown = [name for name in row["given"] if name not in index]
            if unknown or (not several and len(row["given"]) != 1):
                raise DataError(
                    f"{row['path']} has the labels {row['given']}, and the model knows "
                    f"{listed(classifier.classes[:5])} and so on: one of them for each image."
                )
            own = [index[name] for name in row["given"]]
            labels.append(np.isin(np.arange(len(index)), own) if several else own[0])
            logits.append(np.array(row["logits"], np.float32))
            names.append(row["path"])
            foreign += row["distance"] is not None and row["distance"] > 1
    if not names:
        raise DataError(f"None of the {unreadable:,} images can be read.")
    result = evaluate(
        classifier.task.kind,
        np.stack(logits),
        np.array(labels),
        classifier.classes,
        names,
        calibration=classifier.card.calibration,
        tree=classifier.card.tree,
    )
    if classifier.foreign is not None:
        result = replace(result, foreign=ForeignShare.of(foreign, len(names)))
    return result, unreadable


def _columns(
    classifier: Classifier,
    parts: Parts,
    index: int,
    job: Job,
    batch: int,
    note: Callable[[str], None],
) -> Columns:
    """Every row of a shard: images that can be read have values, the others the reason."""
    shard = read_shard(parts.shards[index], parts.class_numbers)
    for problem in shard.problems:
        note(f"{problem.path}: {problem.reason}")
    count = len(shard.names)
    reasons: dict[int, str] = {}
    columns: dict[str, dict[int, Any]] = {name: {} for name in job.columns}
    device = classifier.engine.device
    for number, each in enumerate(_batches(shard, classifier, batch, note)):
        found = each.indices.tolist()
        asked = range(number * batch, min((number + 1) * batch, count))
        left_out = [row for row in asked if row not in set(found)]
        for row, problem in zip(left_out, each.failed, strict=True):
            reasons[row] = problem.reason
        if not found:
            continue
        images = preprocess.normalise(each.images.to(device), classifier.card.images)
        values = job.compute(classifier, images, [shard.names[row] for row in found])
        for name, column in values.items():
            columns[name].update(zip(found, column, strict=True))
    rows: Columns = {"path": list(shard.names), "given": list(map(list, shard.labels))}
    for name, values_by_row in columns.items():
        rows[name] = [values_by_row.get(row) for row in range(count)]
    rows["error"] = [reasons.get(row) for row in range(count)]
    for problem in shard.problems:  # a last row for what cannot even be listed
        told = {"path": problem.path, "given": [], "error": problem.reason}
        for name, values_of_name in rows.items():
            values_of_name.append(told.get(name))
    return rows


def _batches(
    shard: ScanResult, classifier: Classifier, batch: int, note: Callable[[str], None]
) -> Iterator[Batch]:
    """Every image of a shard in its order, read as the engine needs it."""
    rows = np.arange(len(shard.names))
    if not len(rows):
        return iter(())
    split = Split("all", np.zeros_like(rows), rows, shard.reader)
    workers = eval_workers(split, classifier.engine.device)
    return eval_batches(split, classifier.card.images, batch=batch, workers=workers, note=note)


def _write_part(path: Path, columns: Columns, widths: Mapping[str, int], shard: str) -> None:
    """Write a part, whole or not at all; the same columns give the same bytes."""
    pyarrow, parquet = arrow()
    types = {
        "given": pyarrow.list_(pyarrow.string()),
        "labels": pyarrow.list_(pyarrow.string()),
        "top": pyarrow.list_(pyarrow.string()),
        "top_scores": pyarrow.list_(pyarrow.float32()),
        "score": pyarrow.float64(),
        "distance": pyarrow.float64(),
        "foreign_score": pyarrow.float64(),
        "unsure": pyarrow.bool_(),
        "foreign": pyarrow.bool_(),
        **{name: pyarrow.list_(pyarrow.float32(), width) for name, width in widths.items()},
    }
    schema = pyarrow.schema(
        [(name, types.get(name, pyarrow.string())) for name in columns],
        metadata={"shard": PurePosixPath(shard).name},
    )
    table = pyarrow.table(
        {name: pyarrow.array(values, schema.field(name).type) for name, values in columns.items()},
        schema=schema,
    )
    files.write_file(path, lambda temporary: parquet.write_table(table, temporary))


def _part_names(shards: Sequence[str]) -> tuple[str, ...]:
    """Name the part of each shard: as the shard; with its folder where two are called alike."""
    stems = [PurePosixPath(shard).stem for shard in shards]
    if len(set(stems)) < len(stems):
        stems = [
            f"{PurePosixPath(shard).parent.name}-{stem}"
            for shard, stem in zip(shards, stems, strict=True)
        ]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise UsageError(f"Two shards are called {twice}; write their parts into folders apart.")
    return tuple(f"{stem}.parquet" for stem in stems)


def arrow() -> tuple[Any, Any]:
    """Import pyarrow and pyarrow.parquet, or raise MachineError."""
    try:
        import pyarrow  # type: ignore[import-untyped]  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise MachineError("Parquet files need pyarrow: pip install 'vitral[data]'.") from None
    return pyarrow, parquet
