"""The verbs that change weights: demo, train."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitral.cli.app import (
    AsJson,
    Device,
    Size,
    app,
    complain,
    first_process,
    out,
    pixels,
    print_json,
)
from vitral.errors import MachineError, UsageError

if TYPE_CHECKING:
    from vitral.planning.plan import Plan
    from vitral.planning.request import Request
    from vitral.training.recipe import Recipe
    from vitral.training.run_folder import Run


@app.command()
def demo(
    out_: Annotated[Path | None, typer.Option("--out", help="Run folder to make.")] = None,
    device: Device = None,
) -> None:
    """Train on the built-in handwritten digits, write a report, explain one image."""
    from vitral.classifier import load
    from vitral.images.decode import decode
    from vitral.planning.plan import plan
    from vitral.planning.request import Request
    from vitral.training import loop
    from vitral.training.run_folder import default_path

    planned = plan(Request(data="digits"))
    path = out_ or default_path("digits", planned.recipe.model.name)
    run = loop.train(planned.recipe, planned.data, planned.weights, path, device=device)
    image = decode(planned.data.val.read(0))
    image.save(path / "digit.png")
    answer = load(path).predict(path / "digit.png")
    load(path).explain(path / "digit.png").save(path / "explained.png")
    _summary(run)
    out.print(
        f"\none digit    {path / 'digit.png'} is {answer.label} ({answer.score:.3f}), "
        f"explained in {path / 'explained.png'}",
        markup=False,
    )
    place = shlex.quote(str(path))
    out.print("\nNow type:")
    for line in (
        f"vitral predict {place} {place}/digit.png --top 3",
        f"vitral evaluate {place} digits",
        f"vitral explain {place} {place}/digit.png --out {place}/explained",
        "vitral train YOUR_PHOTOS/        # a folder with one folder of images per class",
    ):
        out.print(f"  {line}", markup=False)


Source = Annotated[
    str | None,
    typer.Argument(help="Class folders, a CSV, tar shards, parquet, hf:NAME, digits or shapes."),
]
From = Annotated[
    str | None,
    typer.Option("--from", help="Weights to fine-tune: a run, a checkpoint, an id: timm/NAME."),
]
Model = Annotated[str | None, typer.Option(help="Such as Ti/16 or S/16; see models.")]
RecipeName = Annotated[str | None, typer.Option(help="A recipe by name, or a run's recipe.json.")]
TuneText = Annotated[str | None, typer.Option(help="full, probe, last:N, lora or lora:RANK.")]
Epochs = Annotated[float | None, typer.Option(help="Passes over the images.")]
Batch = Annotated[
    str | None, typer.Option(help="Images per step; auto: in the parts measured to be fastest.")
]
Seed = Annotated[int | None, typer.Option(help="Of weights, order and augmentation.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Any recipe value: optimizer.lr=3e-4.")
]
Out = Annotated[Path | None, typer.Option("--out", help="Run folder to make.")]
Resume = Annotated[Path | None, typer.Option(help="Go on with this run folder.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show the recipe, memory and time; train nothing.")
]
Devices = Annotated[int | None, typer.Option(help="Processes on this machine, one per GPU.")]
Shard = Annotated[bool, typer.Option("--shard", help="Share the network out among them (FSDP2).")]
Log = Annotated[
    list[str] | None, typer.Option(help="Also to tensorboard, wandb, mlflow or trackio.")
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """Where a run computes and writes, which changes nothing of what it learns.

    Attributes:
        out: the run folder.
        device: that of --device.
        devices: the number of processes to start.
        shard: whether they share the network out.
        log: further places for the record.
        fastest: whether the micro-batches of a step are measured (--batch auto).
        started: whether this process is one that torchrun, or --devices, has started.
    """

    out: Path | None
    device: str | None
    devices: int | None
    shard: bool
    log: list[str]
    fastest: bool
    started: bool


@app.command()
def train(
    data: Source = None,
    from_: From = None,
    model: Model = None,
    recipe: RecipeName = None,
    tune: TuneText = None,
    epochs: Epochs = None,
    size: Size = None,
    batch: Batch = None,
    seed: Seed = None,
    set_: Set = None,
    out_: Out = None,
    resume: Resume = None,
    dry_run: DryRun = False,
    json_: AsJson = False,
    device: Device = None,
    devices: Devices = None,
    shard: Shard = False,
    log: Log = None,
) -> None:
    """Train a model on a folder of images; makes a run folder with weights and a report."""
    from vitral.planning.request import Request
    from vitral.training.distributed import launch
    from vitral.training.recipe import Tune

    asked = Request(
        data=data or "",
        start=from_,
        recipe=recipe,
        model=model,
        tune=None if tune is None else Tune.parse(tune, "--tune"),
        size=pixels(size),
        epochs=epochs,
        batch=None if batch in (None, "auto") else _count(batch),
        seed=seed,
        changes=tuple(set_ or ()),
    )
    where = Where(
        out=out_,
        device=device,
        devices=devices,
        shard=shard,
        log=log or [],
        fastest=batch == "auto",
        started=launch.launched(),
    )
    if json_ and not dry_run:
        raise UsageError("--json belongs to --dry-run; a run's numbers are in its metrics.jsonl.")
    if devices is not None and devices < 1:
        raise UsageError(f"--devices is the number of processes, from 1, not {devices}.")
    if resume is None:
        _begin(asked, where, dry_run=dry_run, as_json=json_)
        return
    if asked != Request() or where.fastest or out_ is not None or dry_run:
        raise UsageError(
            "--resume goes on exactly as the run began, so it takes no data or settings: "
            f"vitral train --resume {resume}"
        )
    _go_on(resume, where)


def _go_on(run: Path, where: Where) -> None:
    from vitral.planning.plan import resume
    from vitral.training.run_folder import read

    if where.devices is not None and not where.started:
        read(run)  # a wrong folder is told before processes start
        _launched(where, run, _words("--devices"))
    _summary(resume(run, device=where.device, shard=where.shard, log=where.log))


def _begin(asked: Request, where: Where, *, dry_run: bool, as_json: bool) -> None:
    """A new run: planned, then shown (a dry run), started in several processes, or trained."""
    from vitral.planning.dry_run import check_steps
    from vitral.planning.plan import plan
    from vitral.training import loop
    from vitral.training.loggers import Loggers
    from vitral.training.run_folder import check_new, default_path

    if where.started and where.out is None:
        raise UsageError("Under torchrun name the run folder with --out, where a restart finds it.")
    if where.started and where.fastest:
        raise UsageError(
            "--batch auto measures before the processes start, and torchrun has started these. "
            "Measure with vitral train ... --batch auto --devices N --dry-run, then give torchrun "
            "the accumulate that it shows: --set accumulate=PARTS."
        )
    planned = plan(asked)
    if where.fastest:
        origins = {**planned.origins, "accumulate": "--batch auto"}
        planned = replace(planned, recipe=_fastest(planned.recipe, where), origins=origins)
    recipe = planned.recipe
    if where.out is not None and not where.started:
        check_new(where.out, recipe.data.source)
    Loggers(where.log, Path(), {})  # a wrong name is told before processes start
    if dry_run:
        _show_dry_run(planned, where, as_json)
        return
    path = where.out or default_path(recipe.data.source, recipe.model.name)
    if where.devices is not None and not where.started:
        check_steps(recipe, planned.data, where.devices)
        planned = replace(planned, weights=None)  # each process reads its own
        words = _words("--devices", "--batch") if where.fastest else _words("--devices")
        words += [f"--set=accumulate={recipe.accumulate}"] if where.fastest else []
        words += [] if where.out else ["--out", str(path)]
        _launched(where, path, words)
    run = loop.train(
        recipe,
        planned.data,
        planned.weights,
        path,
        heading=planned.line,
        device=where.device,
        shard=where.shard,
        log=where.log,
    )
    _summary(run)
    if first_process():
        place = shlex.quote(str(path))
        following = f"vitral train PHOTOS/ --from {place}"
        if recipe.labelled:
            source = shlex.quote(recipe.data.source)
            following = f"vitral predict {place} PHOTO.jpg   vitral evaluate {place} {source}"
        out.print(f"next: {following}", markup=False)


def _count(batch: str | None) -> int:
    if batch is None or not batch.isdecimal() or int(batch) < 1:
        raise UsageError(f"--batch is images per step, at least 1, or auto, not '{batch}'.")
    return int(batch)


def _words(*dropped: str) -> list[str]:
    """The command as it was typed, without these options and their values."""
    words = list[str]()
    typed = iter(sys.argv[1:])
    for word in typed:
        if word in dropped:
            next(typed, None)
        elif word.partition("=")[0] not in dropped:
            words.append(word)
    return words


def _launched(where: Where, run: Path, words: list[str]) -> None:
    """Run the command in several processes, again as often as memory asks for smaller parts.

    Never returns: it ends with the exit code of the processes.
    """
    from vitral.training.distributed import launch
    from vitral.training.run_folder import requested_accumulation

    while True:
        asked = requested_accumulation(run)
        code = launch.launch(where.devices or 1, words, device=where.device)
        if code != MachineError.exit_code or requested_accumulation(run) <= asked:
            raise typer.Exit(code)
        words = ["train", "--resume", str(run), *(f"--log={name}" for name in where.log)]
        words += ["--shard"] if where.shard else []
        words += [f"--device={where.device}"] if where.device else []


def _fastest(recipe: Recipe, where: Where) -> Recipe:
    """The recipe with its steps in the micro-batches that this machine computes fastest."""
    from vitral.engines.torch_engine import best_device
    from vitral.planning.benchmark import fastest_micro_batch

    most = max(1, recipe.data.batch // (where.devices or 1))
    part = fastest_micro_batch(recipe, best_device(where.device), most)
    complain(
        f"batch  {recipe.data.batch} in parts of {part} per process, the fastest measured here",
        plain=True,
    )
    return replace(recipe, accumulate=-(-most // part))


def _show_dry_run(planned: Plan, where: Where, as_json: bool) -> None:
    from vitral.cli.tables import origin_lines
    from vitral.engines.torch_engine import best_device
    from vitral.planning.dry_run import dry_run, summary_lines
    from vitral.training.run_folder import with_data

    recipe = with_data(planned.recipe, planned.data)
    origins = {**planned.origins, "model.classes": "the data"}
    device = best_device(where.device)
    processes = where.devices or 1
    result = dry_run(recipe, planned.data, device, processes, out=where.out, shard=where.shard)
    values = {"recipe": recipe.to_dict(), "origins": origins}
    if as_json:
        print_json({"name": planned.name, "reason": planned.reason, **values, **result.to_dict()})
        return
    for line in (planned.line, *origin_lines(values["recipe"], origins), *summary_lines(result)):
        out.print(line, markup=False)


def _summary(run: Run) -> None:
    if not first_process():
        return
    evaluation = run.evaluation
    low, high = evaluation.interval
    out.print(
        f"{evaluation.headline:12} {100 * evaluation.score:.2f} %  (95 %: {100 * low:.1f} to "
        f"{100 * high:.1f}, {evaluation.samples} images that were not trained on)"
    )
    out.print(f"report       {run.path / 'report.html'}", markup=False)
