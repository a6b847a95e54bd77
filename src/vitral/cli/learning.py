"""The verbs that change weights: demo, train."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitral.cli.app import Device, Size, app, out, pixels
from vitral.errors import UsageError

if TYPE_CHECKING:
    from vitral.training.folder import Run


@app.command()
def demo(
    out_: Annotated[Path | None, typer.Option("--out", help="Run folder to make.")] = None,
    device: Device = None,
) -> None:
    """Train on the built-in handwritten digits, write a report, explain one image."""
    from vitral.classifier import load
    from vitral.images.datasets import open_dataset
    from vitral.images.preprocess import decode
    from vitral.recipes import Request, resolve
    from vitral.training.folder import default_path
    from vitral.training.loop import train as run_recipe

    recipe = resolve(Request(data="digits"))
    path = out_ or default_path("digits", recipe.model.name)
    run = run_recipe(recipe, path, device=device)
    digits = open_dataset("digits", val_fraction=recipe.data.val_fraction)
    image = decode(digits.val.read(0))
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


@app.command()
def train(
    data: Annotated[
        str | None,
        typer.Argument(
            help="Class folders, a CSV, tar shards, parquet, hf:NAME, digits or shapes."
        ),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="Weights to fine-tune: a run, a checkpoint, an id: timm/NAME."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Such as Ti/16 or S/16; see models.")] = None,
    recipe: Annotated[str | None, typer.Option(help="A recipe by name.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the images.")] = None,
    size: Size = None,
    batch: Annotated[int | None, typer.Option(help="Images per step.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and augmentation.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any recipe value: optimizer.lr=3e-4.")
    ] = None,
    out_: Annotated[Path | None, typer.Option("--out", help="Run folder to make.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run folder.")] = None,
    device: Device = None,
) -> None:
    """Train a model on a folder of images; makes a run folder with weights and a report."""
    from vitral.recipes import Request, resolve
    from vitral.training import loop
    from vitral.training.folder import default_path

    if resume is not None:
        others = (data, from_, model, recipe, epochs, size, batch, seed, set_ or None, out_)
        if any(value is not None for value in others):
            raise UsageError(
                "--resume goes on exactly as the run began, so it takes no data or settings: "
                f"vitral train --resume {resume}"
            )
        _summary(loop.resume(resume, device=device))
        return
    if not data:
        raise UsageError("Say what to train on: vitral train PHOTOS/, or vitral train digits.")
    request = Request(
        data=data,
        start=from_,
        recipe=recipe,
        model=model,
        size=pixels(size),
        epochs=epochs,
        batch=batch,
        seed=seed,
        changes=set_ or (),
    )
    resolved = resolve(request)
    path = out_ or default_path(data, resolved.model.name)
    run = loop.train(resolved, path, device=device)
    _summary(run)
    place = shlex.quote(str(path))
    out.print(
        f"next: vitral predict {place} PHOTO.jpg   vitral evaluate {place} {shlex.quote(data)}",
        markup=False,
    )


def _summary(run: Run) -> None:
    evaluation = run.evaluation
    low, high = evaluation.interval
    out.print(
        f"accuracy     {100 * evaluation.accuracy:.2f} %  (95 %: {100 * low:.1f} to "
        f"{100 * high:.1f}, {evaluation.samples} images that were not trained on)"
    )
    out.print(f"report       {run.path / 'report.html'}", markup=False)
