"""vitral bench: how fast a network computes on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from vitral.cli.app import LOOK, AsJson, Engine, Precision, app
from vitral.cli.printing import print_json, print_lines, print_note
from vitral.errors import UsageError


@app.command(rich_help_panel=LOOK)
def bench(
    run: Annotated[
        str, typer.Argument(help="Run, artifact, checkpoint or id; or a model's name, like S/16.")
    ],
    batch: Annotated[str, typer.Option(help="Images at a time, such as 1,8,64.")] = "1,8",
    engine: Engine = "auto",
    precision: Precision = "auto",
    threads: Annotated[int | None, typer.Option(help="Cores to compute with.")] = None,
    memory: Annotated[bool, typer.Option(help="Measure peak memory, in fresh processes.")] = True,
    as_json: AsJson = False,
) -> None:
    """Measure throughput, latency and memory by engine and precision, in interleaved rounds.

    Each row says which share of the machine's matrix rate, measured in the same run, it reaches.
    With --engine or --precision one of them alone.
    """
    from vitral.bench import bench as measure
    from vitral.cli.tables import bench_table

    parts = batch.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--batch is numbers of images such as 1,8,64, not '{batch}'.")
    result = measure(
        run,
        batches=[int(part) for part in parts],
        engine=engine,
        precision=precision,
        threads=threads,
        memory=memory,
        announce=print_note,
    )
    if as_json:
        print_json(result.to_dict())
    else:
        print_lines([bench_table(result)])
