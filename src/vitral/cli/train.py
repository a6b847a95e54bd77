"""vitral train: a run, new or resumed, in one process or several."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from vitral.cli.app import (
    DATA,
    LEARN,
    AsJson,
    ClassFile,
    Device,
    LabelFile,
    Size,
    Tree,
    app,
    parse_size,
    typed_without,
)
from vitral.cli.printing import is_first_process, print_json, print_lines, print_note
from vitral.cli.tables import origin_lines, run_lines
from vitral.errors import MachineError, UsageError

if TYPE_CHECKING:
    from vitral.planning.plan import Plan
    from vitral.planning.request import Request
    from vitral.training.recipe import Recipe


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
Keep = Annotated[
    bool, typer.Option("--keep", help="Learn beside the classes that --from knows, forget none.")
]
Rename = Annotated[
    list[str] | None, typer.Option(metavar="OLD=NEW", help="A class of --from by its new name.")
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
class RunOptions:
    """The options of a run that change where and how it computes, and nothing of what it learns.

    Attributes:
        out: the run folder; None for one named after the day, the data and the model.
        device, devices, shard, log: the options of these names.
        fastest: whether the parts of a step are to be measured (--batch auto).
        started: whether torchrun, or we ourselves, started this process.
    """

    out: Path | None
    device: str | None
    devices: int | None
    shard: bool
    log: list[str]
    fastest: bool
    started: bool


@app.command(rich_help_panel=LEARN)
def train(
    data: Annotated[str | None, DATA] = None,
    from_: From = None,
    model: Model = None,
    recipe: RecipeName = None,
    tune: TuneText = None,
    epochs: Epochs = None,
    size: Size = None,
    batch: Batch = None,
    seed: Seed = None,
    tree: Tree = None,
    set_: Set = None,
    keep: Keep = False,
    rename: Rename = None,
    classes: ClassFile = None,
    labels: LabelFile = None,
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

    request = Request(
        data=data or "",
        start=from_,
        recipe=recipe,
        model=model,
        tune=None if tune is None else Tune.parse(tune, "--tune"),
        size=parse_size(size),
        epochs=epochs,
        batch=None if batch in (None, "auto") else _batch_size(batch),
        seed=seed,
        tree=tree,
        changes=tuple(set_ or ()),
        keep=keep,
        rename=tuple(_names(pair) for pair in rename or ()),
        classes=None if classes is None else str(classes),
        labels=None if labels is None else str(labels),
    )
    options = RunOptions(
        out=out_,
        device=device,
        devices=devices,
        shard=shard,
        log=log or [],
        fastest=batch == "auto",
        started=launch.launched(),
    )
    _refuse(options, dry_run=dry_run, as_json=json_, resumed=resume is not None)
    if resume is None:
        _start(request, options, dry_run=dry_run, as_json=json_)
        return
    _resume(resume, request, options)


def _refuse(options: RunOptions, *, dry_run: bool, as_json: bool, resumed: bool) -> None:
    """Raise UsageError for options that do not go together, or that this machine cannot take."""
    from vitral.training.distributed.process_group import check_sharding

    devices = options.devices
    if as_json and not dry_run:
        raise UsageError("--json belongs to --dry-run; a run's numbers are in its metrics.jsonl.")
    if devices is not None and devices < 1:
        raise UsageError(f"--devices is the number of processes, from 1, not {devices}.")
    if resumed and dry_run:
        raise UsageError("--dry-run shows a run that has not begun; leave it or --resume out.")
    if options.shard:
        check_sharding(options.device)


def _resume(run: Path, request: Request, options: RunOptions) -> None:
    from vitral.planning.plan import refuse_beside_resume, resume
    from vitral.training.run_folder import read

    refuse_beside_resume(run, request, measured=options.fastest, out=options.out)
    if options.devices is not None and not options.started:
        read(run)  # a wrong folder is reported before processes start
        _launch(options, run, typed_without("--devices"))
    finished = resume(
        run, request.data, device=options.device, shard=options.shard, log=options.log
    )
    if is_first_process():
        print_lines(run_lines(finished))


def _start(request: Request, options: RunOptions, *, dry_run: bool, as_json: bool) -> None:
    """Plan a new run, then show it (a dry run), or train it in one process or several."""
    from vitral.planning.dry_run import check_steps
    from vitral.planning.plan import plan
    from vitral.training import loop
    from vitral.training.loggers import Loggers
    from vitral.training.run_folder import check_new, new_folder

    if options.started and options.out is None:
        raise UsageError("Under torchrun name the run folder with --out, where a restart finds it.")
    if options.started and options.fastest:
        raise UsageError(
            "--batch auto measures before the processes start, and torchrun has started these. "
            "Measure with vitral train ... --batch auto --devices N --dry-run, then give torchrun "
            "the accumulate that it shows: --set accumulate=PARTS."
        )
    planned = plan(request)
    if options.fastest:
        origins = {**planned.origins, "accumulate": "--batch auto"}
        planned = replace(planned, recipe=_fastest(planned.recipe, options), origins=origins)
    recipe = planned.recipe
    if options.out is not None and not options.started:
        check_new(options.out, recipe.data.source)
    Loggers(options.log, Path(), {})  # a wrong name is reported before processes start
    if dry_run:
        _show_dry_run(planned, options, as_json)
        return
    with new_folder(options.out, recipe.data.source, recipe.model.name) as path:
        if options.devices is not None and not options.started:
            check_steps(recipe, planned.data, options.devices)
            planned = replace(planned, weights=None)  # each process reads its own
            words = typed_without("--devices")
            if options.fastest:  # what auto stands for has been measured
                words = typed_without("--devices", "--batch")
                words.append(f"--set=accumulate={recipe.accumulate}")
            if options.out is None:
                words += ["--out", str(path)]
            _launch(options, path, words)
        run = loop.train(
            recipe,
            planned.data,
            planned.weights,
            path,
            decisions=planned.decisions,
            device=options.device,
            shard=options.shard,
            log=options.log,
        )
    if is_first_process():
        print_lines([*run_lines(run), f"next: {_following(path, recipe)}"])


def _following(run: Path, recipe: Recipe) -> str:
    """Say what may be typed next."""
    place = shlex.quote(str(run))
    if not recipe.labelled:
        return f"vitral train PHOTOS/ --from {place}"
    source = shlex.quote(recipe.data.source)
    return f"vitral predict {place} PHOTO.jpg   vitral evaluate {place} {source}"


def _batch_size(batch: str | None) -> int:
    """Read --batch where it is a number."""
    if batch is None or not batch.isdecimal() or int(batch) < 1:
        raise UsageError(f"--batch is images per step, at least 1, or auto, not '{batch}'.")
    return int(batch)


def _names(pair: str) -> tuple[str, str]:
    """Read OLD=NEW of --rename."""
    old, equals, new = pair.partition("=")
    if not equals or "=" in new:
        raise UsageError(
            f"--rename is OLD=NEW, not '{pair}'. Names with = in them: "
            f"vitral.train(..., rename={{old: new}})."
        )
    return old, new


def _launch(options: RunOptions, run: Path, words: list[str]) -> NoReturn:
    """Run a command in several processes, again as often as memory asks for smaller parts."""
    from vitral.training.distributed import launch
    from vitral.training.run_folder import requested_accumulation

    while True:
        accumulation = requested_accumulation(run)
        code = launch.launch(options.devices or 1, words, device=options.device)
        if code != MachineError.exit_code or requested_accumulation(run) <= accumulation:
            raise typer.Exit(code)
        words = ["train", "--resume", str(run)]
        if options.shard:
            words.append("--shard")
        words += [f"--log={name}" for name in options.log]
        if options.device is not None:
            words.append(f"--device={options.device}")


def _fastest(recipe: Recipe, options: RunOptions) -> Recipe:
    """Return the recipe with its steps in the parts that this machine computes fastest."""
    from vitral.engines.torch_engine import best_device
    from vitral.planning.benchmark import in_fastest_parts

    processes = options.devices or 1
    recipe = in_fastest_parts(recipe, best_device(options.device), processes)
    part = -(-recipe.data.batch // (processes * recipe.accumulate))
    print_note(
        f"batch  {recipe.data.batch} in parts of {part} per process, the fastest measured here"
    )
    return recipe


def _show_dry_run(planned: Plan, options: RunOptions, as_json: bool) -> None:
    from vitral.data.decisions import to_json, to_lines
    from vitral.engines.torch_engine import best_device
    from vitral.planning.dry_run import dry_run, summary_lines
    from vitral.training.run_folder import with_data

    recipe = with_data(planned.recipe, planned.data)
    origins = {**planned.origins, "model.classes": "the data"}
    device = best_device(options.device)
    processes = options.devices or 1
    result = dry_run(recipe, planned.data, device, processes, out=options.out, shard=options.shard)
    values = {"recipe": recipe.to_dict(), "origins": origins}
    if as_json:
        named = {"name": planned.name, "reason": planned.reason}
        decisions = to_json(planned.decisions)
        print_json({**named, "decisions": decisions, **values, **result.to_dict()})
        return
    print_lines(to_lines(planned.decisions))
    print_lines([*origin_lines(values["recipe"], origins), *summary_lines(result)])
