"""vitral push: a model onto the Hugging Face hub, with its card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vitral.cli.app import MOVE, AsJson, app
from vitral.cli.printing import print_json, print_lines, print_note
from vitral.wording import byte_size, listed


@app.command(rich_help_panel=MOVE)
def push(
    run: Annotated[Path, typer.Argument(help="Run or artifact folder.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Its id on the hub.")],
    to: Annotated[str, typer.Option("--as", help="vitral, timm or transformers.")] = "vitral",
    private: Annotated[bool, typer.Option("--private", help="Readable for you alone.")] = False,
    licence: Annotated[
        str | None, typer.Option("--license", help="Such as apache-2.0; else none is stated.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="A new version of one that exists.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a model with its card on the Hugging Face hub; nothing of this machine goes along."""
    from vitral.weights.push import push as push_weights

    done = push_weights(
        run, repo, to=to, private=private, licence=licence, update=update, announce=print_note
    )
    if as_json:
        print_json(done.to_dict())
        return
    print_lines(
        [
            f"pushed    {listed(done.files, 9)}, {byte_size(done.bytes)}",
            f"page      {done.url}",
            f"next: vitral predict {done.repo} PHOTO.jpg   vitral train PHOTOS/ --from {done.repo}"
            if done.library == "vitral"
            else f"read it with {done.library}, or: vitral predict {done.repo} PHOTO.jpg",
        ]
    )
