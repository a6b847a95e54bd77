"""Embed, predict and evaluate with tar shards and --out FOLDER: in parts, by many processes."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitral.cli.app import typed_without
from vitral.cli.printing import print_error, print_json, print_lines, print_note, progress
from vitral.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vitral.classifier import Classifier
    from vitral.parts import Job, Parts

Devices = Annotated[
    int | None, typer.Option(help="Processes on this machine, for shards and --out FOLDER.")
]


@dataclass(frozen=True, slots=True)
class How:
    """The options that say how a network computes."""

    device: str | None
    engine: str
    precision: str
    merge: str = "off"

    def load(self, run: str) -> Classifier:
        """Load a model that computes so."""
        from vitral.loading import load

        return load(
            run,
            device=self.device,
            engine=self.engine,
            precision=self.precision,
            merge=self.merge,
            announce=print_note,
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of a command that may be asked of shards."""

    run: str
    data: Sequence[str]
    out: Path | None
    devices: int | None
    how: How
    batch: int = 64


def wanted(asked: Asked, *others: object) -> bool:
    """Tell whether parts are asked for; UsageError for what does not go with them.

    `others` are options of the command that parts have no room for.
    """
    if asked.out is None:
        if asked.devices is not None:
            raise UsageError(
                "--devices is for images in tar shards, whose parts go into a folder: --out FOLDER."
            )
        return False
    if len(asked.data) != 1 or any(others):
        raise UsageError(
            "--out FOLDER takes one source of tar shards, and goes with --devices, --json, --top "
            "and how to compute alone."
        )
    if asked.devices is not None and asked.devices < 1:
        raise UsageError(f"--devices is the number of processes, from 1, not {asked.devices}.")
    return True


def written(
    asked: Asked, job_of: Callable[[Classifier], Job], *, held_out: bool = False
) -> tuple[Classifier, Parts] | None:
    """Write all parts; None in all processes but the first, which goes on when all are there.

    `held_out` leaves out the shards of a training, where the names of shards tell them.
    """
    from vitral import machine, parts
    from vitral.training.distributed import launch

    started = launch.launched()
    place = parts.Place.of_environment()
    if started:
        machine.die_with_parent()
    assert asked.out is not None
    (source,) = asked.data
    found = parts.Parts.of(source, asked.out, held_out=held_out)
    how = asked.how
    classifier = replace(
        how,
        device=how.device or _own_gpu(started),
        # which engine is faster is not measured while others compute, and one gives the same parts
        engine="torch" if how.engine == "auto" else how.engine,
    ).load(asked.run)
    job = job_of(classifier)
    parts.agree(asked.out, parts.settings_of(classifier, job, asked.batch))
    missing = len(found.missing())
    if place.rank == 0:
        there = len(found.shards) - missing
        print_note(f"{len(found.shards):,} shards, {there:,} of them done before")
    if asked.devices is not None and not started and missing:
        processes = min(asked.devices, missing)
        if processes < asked.devices:
            print_note(f"{processes} processes: there are no more shards left to do")
        code = launch.launch(processes, typed_without("--devices"), device=how.device)
        raise typer.Exit(code)  # the first of them has said what there is to say
    with progress("shards") as tick:
        done = parts.write(
            classifier, found, job, place=place, batch=asked.batch, tick=tick, note=print_error
        )
    if done.rows:
        print_note(
            f"{done.rows:,} images in {done.seconds:.0f} s, {done.rows / done.seconds:.1f} a second"
        )
    if place.rank:
        return None
    parts.wait(found)
    return classifier, found


def write_and_tell(asked: Asked, job_of: Callable[[Classifier], Job], *, as_json: bool) -> None:
    """Write all parts, and say how many rows they have."""
    from vitral import parts

    finished = written(asked, job_of)
    if finished is None:
        return
    rows = 0
    unreadable = 0
    for table in parts.read(finished[1], columns=["error"]):
        rows += table.num_rows
        unreadable += table.num_rows - table.column("error").null_count
    if as_json:
        count = len(finished[1].shards)
        print_json({"out": str(asked.out), "parts": count, "rows": rows, "unreadable": unreadable})
        return
    print_lines(
        [
            f"written: {asked.out}: {len(finished[1].shards):,} parts, {rows:,} rows, "
            f"{unreadable:,} of images that cannot be read"
        ]
    )


def _own_gpu(started: bool) -> str | None:
    """The GPU of this process among several on a machine; None where it is alone."""
    if not started:
        return None
    import torch

    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else None
