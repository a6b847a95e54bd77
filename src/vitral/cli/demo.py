"""vitral demo: everything once, on data that is built in."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vitral.cli.app import LEARN, Device, app
from vitral.cli.printing import print_lines
from vitral.cli.tables import run_lines


@app.command(rich_help_panel=LEARN)
def demo(
    out_: Annotated[Path | None, typer.Option("--out", help="Run folder to make.")] = None,
    device: Device = None,
) -> None:
    """Train on the built-in handwritten digits, write a report, explain one image."""
    from vitral.images.decode import decode
    from vitral.loading import load
    from vitral.planning.plan import plan
    from vitral.planning.request import Request
    from vitral.training import loop
    from vitral.training.run_folder import new_folder

    planned = plan(Request(data="digits"))
    with new_folder(out_, "digits", planned.recipe.model.name) as path:
        run = loop.train(planned.recipe, planned.data, planned.weights, path, device=device)
    decode(planned.data.val.read(0)).save(path / "digit.png")
    classifier = load(path)
    answer = classifier.predict(path / "digit.png")
    classifier.explain(path / "digit.png").save(path / "explained.png")
    print_lines(run_lines(run))
    place = shlex.quote(str(path))
    print_lines(
        [
            "",
            f"one digit    {path / 'digit.png'} is {answer.label} ({answer.score:.3f}), "
            f"explained in {path / 'explained.png'}",
            "",
            "Now type:",
            f"  vitral predict {place} {place}/digit.png --top 3",
            f"  vitral evaluate {place} digits",
            f"  vitral explain {place} {place}/digit.png --out {place}/explained",
            "  vitral train YOUR_PHOTOS/        # a folder with one folder of images per class",
        ]
    )
