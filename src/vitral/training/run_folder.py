"""The run folder: what is written where, and whether it may be written at all.

recipe.json       the resolved recipe, the data's fingerprint and the versions
places.json       where the images lay from a resume on, if they moved
problems.csv      every file that was left out and every remark on the data, where there is any
views.jpg         twelve views as the training sees them
metrics.jsonl     one line per logged step and per validation
state/            two resume slots
.parts            into how many parts a process without memory wants each step cut
best/ last/       artifacts
predictions.csv   one line per validation image, by best/
evaluation.json   what those amount to: scores with their intervals, and the calibration; after
                  --from, class by class what was lost and won
before.json       after --from: the answers of the network that the run began from
report.html       all of it for a person to look at
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import itertools
import json
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout

from vitral import machine, report
from vitral.data.decisions import Decision, to_json
from vitral.data.sources import LEFT_OUT, Dataset, Problem
from vitral.engines.torch_engine import NARROW, best_device, uses_bf16
from vitral.errors import UsageError
from vitral.evaluation import Score
from vitral.model import ViT
from vitral.specs import ImageSpec, counts
from vitral.specs.task import TaskKind
from vitral.storage import files
from vitral.training import finetuning, places
from vitral.training.distributed.process_group import ProcessGroup
from vitral.training.recipe import Classification, Recipe
from vitral.training.state import Progress, progress_of
from vitral.version import VERSION
from vitral.weights.card import Card
from vitral.wording import first_lines

LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: its folder, and how its best/ does on the validation images."""

    path: Path
    evaluation: Score

    def __fspath__(self) -> str:
        return str(self.path)


@contextlib.contextmanager
def new_folder(out: Path | None, source: str, model: str) -> Iterator[Path]:
    """Name the folder of a new run: `out`, or runs/DATE_DATA_MODEL that no other start gets.

    The dated folder is made at once, with the time and a number added where one is there, and is
    taken away again where no run began in it. Raises UsageError where runs/ would lie inside the
    data, MachineError where it cannot be made.
    """
    if out is not None:
        yield out
        return
    runs = Path("runs")
    files.refuse_inside(runs, source)
    is_new = not runs.exists()
    path = _made_at_once(runs, source, model)
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):  # a run has begun in it
            path.rmdir()
            if is_new:
                runs.rmdir()


def _made_at_once(runs: Path, source: str, model: str) -> Path:
    """The first dated folder that this process, and no other, can make."""
    now = datetime.now()
    names = "_".join(
        re.sub(r"[^\w.-]+", "-", part).strip("-") for part in (Path(source).name, model)
    )
    usual = f"{now:%Y-%m-%d}_{names}"
    timed = f"{usual}_{now:%H%M%S}"
    try:
        runs.mkdir(exist_ok=True)
        for name in itertools.chain((usual, timed), (f"{timed}_{k}" for k in itertools.count(2))):
            with contextlib.suppress(FileExistsError):
                (runs / name).mkdir()
                return runs / name
    except OSError as error:
        raise files.write_error(error, runs / usual) from None
    raise AssertionError("there is always a next number")


def check_new(out: Path, source: str) -> None:
    """Refuse a place that is taken, inside the data, or not writable; nothing is left behind."""
    if (out / "recipe.json").exists():
        raise UsageError(
            f"{out} already holds a run. Go on with it: vitral train --resume {out}, or choose "
            f"another folder with --out."
        )
    files.refuse_existing(out, ignored=_left_behind)
    files.refuse_inside(out, source)
    try:
        with tempfile.TemporaryFile(dir=files.nearest_parent(out)):
            pass
    except OSError as error:
        raise files.write_error(error, out) from None


def _left_behind(file: Path) -> bool:
    """Whether it is all that a run killed in its first moment leaves of itself."""
    return file.name == LOCK or files.is_unfinished(file)


def with_data(recipe: Recipe, data: Dataset) -> Recipe:
    """The recipe with the classes of the data in its model, and where the data is for good."""
    model = dataclasses.replace(recipe.model, classes=len(data.classes))
    # a resume may come from another folder
    tree = recipe.data.tree
    tree = tree if tree in ("folders", "none") else _for_good(tree)
    source = dataclasses.replace(recipe.data, source=data.absolute_source, tree=tree)
    goal = recipe.objective
    if isinstance(goal, Classification):
        goal = dataclasses.replace(goal, teacher=_for_good(goal.teacher))
    return dataclasses.replace(
        recipe, model=model, data=source, start=_for_good(recipe.start), objective=goal
    )


def _for_good(weights: str | None) -> str | None:
    """Weights on this disk by their whole path, an id as it is."""
    on_disk = weights is not None and Path(weights).exists()
    return str(Path(weights or "").resolve()) if on_disk else weights


def is_run_of(out: Path, recipe: Recipe) -> bool:
    """Return whether the folder is that of a run of this very recipe."""
    return (out / "recipe.json").exists() and read(out)[0] == recipe


def create(out: Path, recipe: Recipe, data: Dataset, decisions: Iterable[Decision] = ()) -> None:
    """Make the folder and its recipe.json, with what was chosen for the user."""
    content = {
        "recipe": recipe.to_dict(),
        "digest": _digest(recipe.to_dict()),
        "fingerprint": data.fingerprint,
        "images": dict(data.contents),
        "command": shlex.join(["vitral", *sys.argv[1:]]),
        "environment": environment(),
        "decisions": to_json([*data.decisions, *decisions]),
    }
    files.write_json(out / "recipe.json", content)


def list_problems(out: Path, problems: Iterable[Problem]) -> None:
    """Add to problems.csv what it does not list yet."""
    path = out / "problems.csv"
    rows = {}
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            rows = {tuple(row): None for row in list(csv.reader(file))[1:]}
    listed = len(rows)
    for problem in problems:
        texts = (problem.path, problem.code, problem.reason)
        row = [t.encode("utf-8", "backslashreplace").decode() for t in texts]  # names may be bytes
        rows[tuple(row)] = None
    if len(rows) > listed:
        files.write_csv(path, [("path", "code", "reason"), *rows])


@contextlib.contextmanager
def locked(out: Path, group: ProcessGroup) -> Iterator[None]:
    """Hold the run folder for these processes; UsageError when others are at work in it."""
    with contextlib.ExitStack() as stack:
        with group.on_main() as main:
            if main:
                try:
                    out.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(FileLock(out / LOCK, timeout=0))
                except Timeout:
                    raise UsageError(
                        f"Another process is training in {out}. Wait for it, or choose another "
                        f"--out."
                    ) from None
                except OSError as error:
                    raise files.write_error(error, out) from None
        yield


def remove_unstarted(out: Path) -> None:
    """Remove a run folder that never got as far as a saved state, unless a restart goes on."""
    if progress_of(out / "state") is not None or requested_accumulation(out):
        return
    with contextlib.suppress(OSError):
        for entry in out.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != LOCK:
                entry.unlink()
        # the lock goes last: whoever gets the next one finds nothing that is still to be removed
        (out / LOCK).unlink()
        out.rmdir()


def request_accumulation(out: Path, parts: int) -> None:
    """Let the next start of this run cut each process's piece of a step into so many parts."""
    files.write_text(out / ".parts", f"{parts}\n")


def requested_accumulation(out: Path) -> int:
    """Return what a process without memory asked for; 0 if none did."""
    try:
        return int((out / ".parts").read_text())
    except (OSError, ValueError):
        return 0


def read(out: Path) -> tuple[Recipe, str]:
    """The recipe of a run folder, with the place of its images, and their fingerprint."""
    path = out / "recipe.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or not {"recipe", "fingerprint"} <= set(content):
            raise ValueError("it has no 'recipe' and 'fingerprint'")
        newer = str((content.get("environment") or {}).get("vitral", ""))
        if _parts(newer) > _parts(VERSION):
            raise UsageError(
                f"Vitral {newer} wrote {out}, and this is {VERSION}. Update it to go on: "
                f"pip install -U vitral."
            )
        digest = _digest(content["recipe"])
        if content.get("digest", digest) != digest:
            raise UsageError(
                f"{path} was edited since the run began, and a resume goes on exactly. Put it "
                f"back, or begin a new run with it: vitral train --recipe {path}"
            )
        recipe = Recipe.from_dict(content["recipe"])
        recipe = dataclasses.replace(recipe, data=places.last_place(out, recipe.data))
        return recipe, content["fingerprint"]
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(
            f"{out} is not a run folder: it has no recipe.json. Give the folder that "
            f"`vitral train` printed."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} cannot be read: {str(error).rstrip('.')}. It is damaged, or another version "
            f"wrote it."
        ) from None


def _digest(recipe: Any) -> str:
    text = json.dumps(recipe, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _parts(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def log(out: Path, line: dict[str, Any]) -> None:
    """Append one line to metrics.jsonl."""
    text = json.dumps(line) + "\n"
    try:
        with (out / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise files.write_error(error, out / "metrics.jsonl", needed=len(text)) from None


def rewind(out: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl that come after the resumed step, and half-written ones."""
    path = out / "metrics.jsonl"
    if path.exists():
        lines = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    lines.append(line + "\n")
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
        files.write_text(path, "".join(lines))


def card(recipe: Recipe, data: Dataset, progress: Progress, evaluation: Score) -> Card:
    """Return the card of an artifact made at this moment of the run."""
    made_by = {
        "recipe": recipe.to_dict(),
        "data": {
            "source": data.source,
            "fingerprint": data.fingerprint,
            "train": len(data.train),
            data.val.name: len(data.val),
        },
        "step": progress.step,
        "seconds": round(progress.seconds, 1),
        "environment": environment(),
    }
    metrics = {
        **evaluation.measures,
        evaluation.headline.replace(" ", "_"): evaluation.score,
        "interval": list(evaluation.interval),
        "samples": evaluation.samples,
        "loss": evaluation.loss,
        "split": data.val.name,
        "selected": recipe.select,
    }
    return Card(
        model=recipe.model,
        images=recipe.images,
        classes=data.classes,
        made_by=made_by,
        metrics=metrics,
        labels="several" if data.multi_label else "one",
    )


def environment() -> dict[str, Any]:
    """Versions and machine, for the record: everything that may change a bit of the result."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    told: Any = getattr(torch.cpu, "get_capabilities", dict)()  # of torch 2.11
    name = told.get("cpu_name") or platform.machine()
    return {
        "vitral": VERSION,
        "code": _code(),
        "torch": torch.__version__,
        "torchvision": metadata.version("torchvision"),
        "numpy": np.__version__,
        "pillow": metadata.version("pillow"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": device or platform.machine(),
        "cpu": f"{name}, {torch.backends.cpu.get_cpu_capability()}",
        "bf16": uses_bf16("auto", best_device(), NARROW),
        "cores": machine.cores(),
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def _code() -> str:
    """The first digits of a digest of Vitral's own files: versions may be many between releases."""
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(Path(machine.__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def summary_lines(
    recipe: Recipe,
    data: Dataset,
    model: ViT,
    group: ProcessGroup,
    *,
    started: bool,
    bf16: bool,
) -> list[str]:
    """Return what a person should know before the first step.

    `started` says that the weights come from `recipe.start`, `bf16` that it computes in bfloat16.
    """
    notes = (
        f"{'left out' if problem.code in LEFT_OUT else 'note'}: {problem.path}: {problem.reason}"
        for problem in data.problems
    )
    shown = first_lines(notes, what=" notes on the data, in the run's problems.csv")
    height, width = recipe.images.size
    trained = finetuning.trainable(model)
    parameters = counts.parameters(recipe.model)
    part = f", {trained / 1e6:.2f} M of them trained" if trained < parameters else ""
    kinds = f"{len(data.classes)} classes" if recipe.labelled else "without labels"
    if data.multi_label:
        kinds += ", several to an image"
    many = f" x {group.world_size}" if group.world_size > 1 else ""
    how = f"{recipe.length}, batch {recipe.data.batch}, peak lr {recipe.optimizer.lr:g}"
    if recipe.tune.kind == "probe":  # nothing comes of a batch or a rate
        how = "one pass and a solver"
    return [
        f"data   {data.source}: {len(data.train):,} train, {len(data.val):,} {data.val.name}, "
        f"{kinds}",
        *shown,
        f"model  {recipe.model.name}: {parameters / 1e6:.2f} M parameters{part}, "
        f"{height}x{width} px" + (f", from {recipe.start}" if started else ""),
        f"plan   {how}, {'bf16' if bf16 else 'fp32'} on {group.device}{many}",
    ]


def write_report(
    out: Path, data: Dataset, evaluation: Score, model: ViT, images: ImageSpec
) -> None:
    """report.html with the most confident mistakes and what the model looked at in them."""
    kind: TaskKind = "multi_label" if data.multi_label else "single_label"
    examples = report.examples(
        data.val, evaluation.predictions, model=model.cpu(), image_spec=images, kind=kind
    )
    report.write_report(out, examples=examples)
