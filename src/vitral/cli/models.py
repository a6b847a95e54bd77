"""The verbs that show what there is: models, doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitral.cli import tables
from vitral.cli.app import AsJson, app, out, print_json

if TYPE_CHECKING:
    from vitral.specs import ModelSpec


@app.command()
def models(
    weights: Annotated[
        bool, typer.Option("--weights", help="List published weights instead: ids for RUN, --from.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the models: width, depth, heads, parameters, GFLOPs at their size."""
    from vitral import catalog
    from vitral.catalog.checkpoints import checkpoints

    if weights:
        listed = [row.to_dict() for row in checkpoints()]
        if as_json:
            print_json(listed)
        else:
            out.print(tables.weights_table(listed))
        return
    rows = [_row(catalog.model(name)) for name in catalog.names()]
    if as_json:
        print_json(rows)
    else:
        out.print(tables.models_table(rows))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Show what Vitral finds on this machine, and whether it is ready."""
    from vitral import machine

    found = machine.survey()
    if as_json:
        print_json(found.to_dict())
    else:
        for name, value in found.facts.items():
            out.print(f"{name:<12} {value}", markup=False)
        for problem in found.problems:
            out.print(f"problem      {problem}", markup=False)
        out.print("ready" if not found.problems else "not ready")
    if found.problems:
        raise typer.Exit(5)


def _row(spec: ModelSpec) -> dict[str, Any]:
    from vitral.specs import counts

    numbers = {"width": spec.width, "depth": spec.depth, "heads": spec.heads}
    gflops = round(counts.flops(spec) / 1e9, 3)
    return {
        "name": spec.name,
        **numbers,
        "parameters": counts.parameters(spec),
        "gflops": gflops,
        "size": list(spec.size),
    }
