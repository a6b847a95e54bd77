"""vitral models: what exists."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitral.cli.app import LOOK, AsJson, app
from vitral.cli.printing import print_json, print_lines
from vitral.cli.tables import models_table, weights_table

if TYPE_CHECKING:
    from vitral.specs import ModelSpec


@app.command(rich_help_panel=LOOK)
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
        # "home" is what the key was first called
        rows = [asdict(row) | {"home": row.format} for row in checkpoints()]
    else:
        rows = [_row(catalog.model(name)) for name in catalog.names()]
    if as_json:
        print_json(rows)
    else:
        print_lines([weights_table(rows) if weights else models_table(rows)])


def _row(spec: ModelSpec) -> dict[str, Any]:
    from vitral.specs import counts

    return {
        "name": spec.name,
        "width": spec.width,
        "depth": spec.depth,
        "heads": spec.heads,
        "parameters": counts.parameters(spec),
        "gflops": round(counts.flops(spec) / 1e9, 3),
        "size": list(spec.size),
    }
