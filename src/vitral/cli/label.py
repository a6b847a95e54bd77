"""vitral label: which pictures a person should look at, to label them or to correct their label."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitral.cli.app import (
    LEARN,
    AsJson,
    Device,
    Engine,
    LabelFile,
    Precision,
    RunArgument,
    app,
    refuse_part_of,
)
from vitral.cli.printing import print_error, print_json, print_lines, print_note, progress
from vitral.errors import UsageError

if TYPE_CHECKING:
    from vitral.classifier import Classifier
    from vitral.labelling import Ranking

_SHOWN = 10


@app.command(rich_help_panel=LEARN)
def label(
    run: RunArgument,
    data: Annotated[
        list[str], typer.Argument(help="Pictures to choose from, or labelled images to check.")
    ],
    next_: Annotated[
        int | None, typer.Option("--next", help="Choose so many pictures to label.", min=1)
    ] = None,
    errors: Annotated[
        int | None, typer.Option("--errors", help="Name so many likely label errors.", min=1)
    ] = None,
    out_: Annotated[Path, typer.Option("--out", help="The table to fill in.")] = Path(
        "relabel.csv"
    ),
    labels: LabelFile = None,
    label_studio: Annotated[
        Path | None, typer.Option("--label-studio", help="Write its tasks too, F.json.")
    ] = None,
    device: Device = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    as_json: AsJson = False,
) -> None:
    """Choose pictures worth labelling, or likely label errors, and write them into relabel.csv.

    Fill in its column `label` (or `remove`) and give it to train, evaluate and check by --labels.
    """
    if (next_ is None) == (errors is None):
        raise UsageError("Say one: --next 50 chooses pictures to label, --errors 50 label errors.")
    if errors is not None and (labels is not None or len(data) > 1):
        raise UsageError("--errors looks at one source of labelled images, and takes no --labels.")
    _check_targets(out_, label_studio, data)
    from vitral import labelling
    from vitral.loading import load

    classifier = load(run, device=device, engine=engine, precision=precision, announce=print_note)
    with progress("looking") as tick:
        if next_ is not None:
            done = _done(labels)
            ranking = labelling.next_pictures(classifier, data, next_, done=done, tick=tick)
        else:
            ranking = labelling.label_errors(classifier, data[0], errors or 0, tick=tick)
    for problem in ranking.failed:
        print_error(f"{problem.path}: {problem.reason}")
    labelling.write(out_, ranking.rows)
    if label_studio is not None:
        several = classifier.task.multi_label
        classes = sorted({*classifier.classes, *(row.suggested for row in ranking.rows)})
        labelling.write_tasks(label_studio, ranking.rows, classes, several=several)
    if as_json:
        rows = [row.to_dict() for row in ranking.rows]
        print_json({"out": str(out_), "looked_at": ranking.looked_at, "rows": rows})
    else:
        _print(ranking, classifier, out_, data[0], errors=errors is not None)


def _check_targets(out: Path, tasks: Path | None, data: list[str]) -> None:
    """Raise UsageError for another suffix, and for files that are there: they may be filled in."""
    targets = [(out, ".csv")] if tasks is None else [(out, ".csv"), (tasks, ".json")]
    for target, suffix in targets:
        if target.suffix != suffix:
            raise UsageError(f"{target} does not end in {suffix}; name a file that does.")
        if target.exists():
            raise UsageError(
                f"{target} is there and may hold labels that were filled in; choose another file."
            )
        for source in data:
            if Path(source).is_dir():
                refuse_part_of(target.parent, source)


def _done(labels: Path | None) -> list[str]:
    """Pictures that an earlier table has labels for."""
    from vitral.data import corrections

    if labels is None:
        return []
    return [str(labels.absolute().parent / row.path) for row in corrections.read(labels)]


def _print(
    ranking: Ranking, classifier: Classifier, out: Path, source: str, *, errors: bool
) -> None:
    what = "likely label errors" if errors else "pictures to label"
    print_lines([f"looked at {ranking.looked_at:,} pictures: {len(ranking.rows):,} {what}"])
    for row in ranking.rows[:_SHOWN]:
        given = f"{row.given}: " if row.given else ""
        print_lines([f"{row.path}  {given}{row.reason}"])
    if len(ranking.rows) > _SHOWN:
        print_lines([f"... and {len(ranking.rows) - _SHOWN:,} more"])
    where = source if errors else "PHOTOS/"
    print_lines(
        [
            f"written: {out}",
            f"next: fill in its column label, then vitral train {where} --labels {out}",
        ]
    )
