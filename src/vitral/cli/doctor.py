"""vitral doctor: whether this machine is ready."""

import typer

from vitral.cli.app import LOOK, AsJson, app
from vitral.cli.printing import print_json, print_lines
from vitral.errors import MachineError


@app.command(rich_help_panel=LOOK)
def doctor(as_json: AsJson = False) -> None:
    """Show what Vitral finds on this machine, and whether it is ready."""
    from vitral import machine
    from vitral.engines import openvino_engine
    from vitral.storage import cache
    from vitral.wording import byte_size

    survey = machine.survey()
    survey.facts["cache"] = (
        f"{cache.folder()}: compiled networks take {byte_size(openvino_engine.size())}; "
        f"delete the folder to empty it, nothing in it is needed"
    )
    if as_json:
        print_json(survey.to_dict())
    else:
        print_lines(f"{name:<15} {value}" for name, value in survey.facts.items())
        print_lines(f"problem         {problem}" for problem in survey.problems)
        print_lines(["not ready" if survey.problems else "ready"])
    if survey.problems:
        raise typer.Exit(MachineError.exit_code)
