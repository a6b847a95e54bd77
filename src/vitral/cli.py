"""One verb = one function. This file parses and prints; everything else lives below.

Torch is imported by the verb that needs it, so that `vitral --help` answers at once.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from vitral import terminal
from vitral.errors import Interrupted, MachineError, UsageError, VitralError
from vitral.version import VERSION

if TYPE_CHECKING:
    from vitral.spec import ModelSpec
    from vitral.training.folder import Run

app = typer.Typer(
    name="vitral",
    help="The complete Vision Transformer: train, evaluate and explain it on your own images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console(highlight=False, soft_wrap=True, emoji=False)

Data = Annotated[str, typer.Argument(help="Folder of class folders, or digits, or shapes.")]
RunArgument = Annotated[Path, typer.Argument(help="Run folder or artifact folder.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...; default: the fastest.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Size = Annotated[str | None, typer.Option(help="Pixels, 224 or HEIGHTxWIDTH.")]


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    if version:
        out.print(f"vitral {VERSION}")
        raise typer.Exit


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
        str | None, typer.Argument(help="Folder of class folders, or digits, or shapes.")
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
        others = (data, model, recipe, epochs, size, batch, seed, set_ or None, out_)
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
        recipe=recipe,
        model=model,
        size=_pixels(size),
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


@app.command()
def evaluate(
    run: RunArgument,
    data: Data,
    device: Device = None,
    as_json: AsJson = False,
    csv: Annotated[Path | None, typer.Option(help="Write one line per image here.")] = None,
) -> None:
    """Count how many labelled images a model gets right, with the interval and the confusions."""
    from vitral.classifier import load
    from vitral.evaluation import write_predictions

    classifier = load(run, device=device)
    split = classifier.labelled(data)
    for problem in split.problems[:5]:
        _complain(f"{problem.path}: {problem.reason}")
    evaluation = classifier.evaluate(split)
    if csv is not None:
        write_predictions(csv, evaluation)
    if as_json:
        _json({**evaluation.to_dict(), "split": split.name})
    else:
        learnt = ", those it learnt from included if they are there" * (split.name == "all")
        out.print(f"data      {data}: {len(split):,} {split.name} images{learnt}", markup=False)
        for part in terminal.evaluation_lines(evaluation):
            out.print(part, markup=False)


@app.command()
def predict(
    run: RunArgument,
    images: Annotated[list[Path], typer.Argument(help="Images or folders of images.")],
    top: Annotated[int, typer.Option(help="Classes to name per image.", min=1)] = 3,
    csv: Annotated[Path | None, typer.Option(help="Write the answers to this file.")] = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Name the class of each image."""
    from vitral.classifier import Answer, load
    from vitral.errors import DataError
    from vitral.images.datasets import find_images

    classifier, files = load(run, device=device), find_images(images)
    _spare(csv, files)
    results, unreadable = [], 0
    for result in classifier.predict_files(files, top=top):
        if isinstance(result, Answer):
            results.append(result.to_dict())
            line = "  ".join(f"{label} {score:.3f}" for label, score in result.top)
            shown = f"{result.path}  {line}"
        else:
            path, error = result
            unreadable += 1
            entry = {"code": "unreadable", "message": str(error)}
            results.append({"path": str(path), "error": entry})
            shown = f"{path}  cannot be read: {error}"
        if not as_json:
            out.print(shown, markup=False)
    if as_json:
        _json({"results": results})
    if csv is not None:
        _write_answers(csv, results)
    if unreadable == len(results):
        raise DataError(f"None of the {unreadable} files could be read as an image.")


@app.command()
def explain(
    run: RunArgument,
    image: Annotated[Path, typer.Argument(help="One image.")],
    out_: Annotated[Path, typer.Option("--out", help="A .png or .svg, or a folder.")],
    device: Device = None,
) -> None:
    """Show what the model looked at in one image."""
    from vitral.classifier import load

    _spare(out_, [image])
    explanation = load(run, device=device).explain(image)
    explanation.save(out_)
    for label, score in explanation.top():
        out.print(f"{label}  {score:.3f}", markup=False)
    out.print(f"written: {out_}", markup=False)


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the models: width, depth, heads, parameters, GFLOPs at their size."""
    from vitral import catalog

    rows = [_row(catalog.model(name)) for name in catalog.names()]
    if as_json:
        _json(rows)
    else:
        out.print(terminal.models_table(rows))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Show what Vitral finds on this machine, and whether it is ready."""
    from vitral import machine

    found = machine.survey()
    if as_json:
        _json(found.to_dict())
    else:
        for name, value in found.facts.items():
            out.print(f"{name:<12} {value}", markup=False)
        for problem in found.problems:
            out.print(f"problem      {problem}", markup=False)
        out.print("ready" if not found.problems else "not ready")
    if found.problems:
        raise typer.Exit(5)


def main() -> None:
    """The `vitral` command: runs a verb, and turns errors into one sentence and an exit code."""
    # Torch's CPU threads spin while they wait. Beside any other busy process that made a training
    # step 13 times slower; waiting passively costs a few per cent on an idle machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = [word for word in sys.argv[1:] if word != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that cannot be shown is escaped instead
            stream.reconfigure(errors="backslashreplace")
    try:
        app(arguments, prog_name="vitral")
    except SystemExit as stop:
        if stop.code == Interrupted.exit_code:
            _complain("Stopped at once. A run goes on with: vitral train --resume RUN")
        raise
    except BrokenPipeError:  # the reader, say `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (VitralError, OSError) as error:
        if debug:
            raise
        _complain(str(error))
        sys.exit(error.exit_code if isinstance(error, VitralError) else MachineError.exit_code)


def _complain(message: str) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    console.print(f"vitral: {message}", markup=False)


def _row(spec: ModelSpec) -> dict[str, Any]:
    numbers = {"width": spec.width, "depth": spec.depth, "heads": spec.heads}
    gflops = round(spec.flops() / 1e9, 3)
    return {
        "name": spec.name,
        **numbers,
        "parameters": spec.parameters,
        "gflops": gflops,
        "size": list(spec.size),
    }


def _spare(target: Path | None, images: list[Path]) -> None:
    """Refuse to write over an image that was given."""
    if (
        target is not None
        and target.is_file()
        and any(target.samefile(i) for i in images if i.exists())
    ):
        raise UsageError(f"{target} is one of the images; write somewhere else.")


def _json(values: Any) -> None:
    sys.stdout.write(json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def _pixels(size: str | None) -> int | tuple[int, int] | None:
    if size is None:
        return None
    parts = size.lower().split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts) or len(parts) > 2:
        raise UsageError(f"--size is pixels, 224 or HEIGHTxWIDTH like 224x320, not '{size}'.")
    numbers = [int(part) for part in parts]
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def _summary(run: Run) -> None:
    evaluation = run.evaluation
    low, high = evaluation.interval
    out.print(
        f"accuracy     {100 * evaluation.accuracy:.2f} %  (95 %: {100 * low:.1f} to "
        f"{100 * high:.1f}, {evaluation.samples} images that were not trained on)"
    )
    out.print(f"report       {run.path / 'report.html'}", markup=False)


def _write_answers(path: Path, results: list[dict[str, Any]]) -> None:
    import csv

    from vitral.weights import storage

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["path", "label", "score", "error"])
    for result in results:
        error = result.get("error", {}).get("message", "")
        writer.writerow([result["path"], result.get("label", ""), result.get("score", ""), error])
    storage.write_text(path, text.getvalue())
