"""vitral explain: what an answer rests on, or what the model itself has learnt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitral.cli.app import (
    UNDERSTAND,
    AsJson,
    Device,
    Engine,
    Precision,
    RunArgument,
    app,
    refuse_overwrite,
)
from vitral.cli.printing import print_error, print_json, print_lines, print_note, progress
from vitral.cli.tables import doubts_of, truth
from vitral.errors import DataError, UsageError, VitralError

if TYPE_CHECKING:
    from torch import Tensor

    from vitral.classifier import Classifier
    from vitral.explanation import ExplainRequest, Explanation

TABLE = "explanations.csv"
COLUMNS = (
    *("path", "answer", "probability", "target"),
    *("deletion score", "insertion score", "folder", "unsure", "foreign"),
)
MAX_IMAGES = 128  # images for the attention distance, as in the paper's figure 7


Method = Annotated[
    str | None,
    typer.Option(help="occlusion (default), gradient, relevance, rollout, attention (a layer)."),
]
Query = Annotated[
    str | None, typer.Option(help="Whose attention: cls, or a patch ROW,COLUMN from 1,1.")
]


@app.command(rich_help_panel=UNDERSTAND)
def explain(
    run: RunArgument,
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="Images or folders of images; none: the model's own figures."),
    ] = None,
    out_: Annotated[
        Path, typer.Option("--out", help="A folder; of one image also a .png or .svg.")
    ] = Path("explained"),
    method: Method = None,
    query: Query = None,
    layer: Annotated[int | None, typer.Option(help="Of attention, from 1; default: last.")] = None,
    head: Annotated[int | None, typer.Option(help="Of attention, from 1; default: mean.")] = None,
    target: Annotated[
        str | None, typer.Option("--class", help="The class to explain; default: the answer.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Without images: those to measure attention on; default: its own."),
    ] = None,
    device: Device = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    fast: Annotated[
        bool, typer.Option("--fast", help="By integrated gradients alone, without the test.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show which patches the answer needs, and test whether that is true.

    One image gets a folder of figures and numbers, several a folder each and explanations.csv.
    Without images: the model's filters, positions and attention distances.
    """
    from vitral.data.datasets import find_images
    from vitral.explanation import ExplainRequest
    from vitral.loading import load

    named: Any = method  # resolve() refuses what is no method
    request = ExplainRequest(
        method=named, target=target, query=_query(query), layer=layer, head=head
    )
    if fast:
        request = _fast(request)
    files = list(dict.fromkeys(find_images(images or [])))
    refuse_overwrite(files, out_)
    one = len(files) == 1 and files == images  # named by itself, not found in a folder
    _check_place(out_, one=one)
    if data is not None and files:
        raise UsageError("--data is for the model's own figures; leave it or the images out.")
    classifier = load(run, device=device, engine=engine, precision=precision, announce=print_note)
    if not files:
        if request != ExplainRequest():
            raise UsageError("A method, query, layer, head or class needs an image to explain.")
        results: Any = {"written": list(map(str, _of_model(classifier, out_, data)))}
    elif one:
        results = {"results": [_of_image(classifier, files[0], out_, request)]}
    else:
        results = {"results": _of_images(classifier, files, out_, request, quiet=as_json)}
    if as_json:
        print_json(results)
    elif not files:
        print_lines(f"written: {name}" for name in results["written"])
    elif one:
        _print_answer(results["results"][0])


def _fast(request: ExplainRequest) -> ExplainRequest:
    """Ask for the map alone, in three passes forward and back; UsageError beside another method."""
    if request.method not in (None, "gradient") or request.query or request.layer or request.head:
        raise UsageError("--fast is the method gradient: leave --method and what goes with it out.")
    return replace(request, method="gradient", steps=0, details=False)


def _check_place(target: Path, *, one: bool) -> None:
    single = target.suffix.lower() in (".png", ".svg")
    if single and not one:
        raise UsageError(f"{target} is one picture of one image; name a folder for what is given.")
    if target.is_file() and not single:
        raise UsageError(f"{target} is a file; name a folder, or a .png or .svg.")


def _of_image(
    classifier: Classifier, path: Path, place: Path, request: ExplainRequest
) -> dict[str, Any]:
    from vitral.explanation import save

    refuse_overwrite([path], *(place / name for name in save.file_names()))
    with progress("explaining"):
        explanation = classifier.explain(path, request)
    explanation.save(place)
    return _result(explanation, place)


def _of_images(
    classifier: Classifier, paths: list[Path], place: Path, request: ExplainRequest, *, quiet: bool
) -> list[dict[str, Any]]:
    """Explain images in a folder each, with a table; what cannot be read is named and left out."""
    from vitral.explanation import Explanation
    from vitral.explanation.figures import overview
    from vitral.storage import files

    folders = dict(zip(paths, _folders(paths), strict=True))
    for name in folders.values():
        refuse_overwrite(paths, place / name / "overlay.png", place / name / "overview.png")
    results: list[dict[str, Any]] = []
    with progress("explaining") as tick:
        explained = zip(paths, classifier.explain_files(paths, request), strict=True)
        for done, (path, result) in enumerate(explained, start=1):
            tick(done, len(paths))
            if not isinstance(result, Explanation):
                print_error(f"{path} cannot be read: {result[1]}")
                entry = {"code": "unreadable", "message": str(result[1])}
                results.append({"path": str(path), "error": entry})
                continue
            folder = place / folders[path]
            files.write_bytes(folder / "overlay.png", result.overlay_png())
            files.write_bytes(folder / "overview.png", overview.draw(result, "png").to_bytes("png"))
            results.append(_result(result, folder))
    good = [result for result in results if "error" not in result]
    if not good:
        raise DataError(f"None of the {len(paths)} files could be read as an image.")
    _write_table(place / TABLE, good)
    if not quiet:
        _print_summary(good, place)
    return results


def _of_model(classifier: Classifier, place: Path, data: str | None) -> list[Path]:
    from vitral.explanation.model_analysis import explain_model

    batches = _model_images(classifier, data)
    with progress("looking") as tick:
        return explain_model(
            classifier.model,
            place,
            batches,
            image_spec=classifier.card.images,
            progress=lambda done: tick(done, MAX_IMAGES),
        )


def _model_images(classifier: Classifier, data: str | None) -> Iterator[Tensor] | None:
    """Load up to MAX_IMAGES images for the model: of `data`, or of what it was trained on."""
    import numpy as np

    from vitral.data.loader import eval_batches
    from vitral.images.preprocess import normalise

    trained: Any = classifier.card.made_by.get("data")
    source = data or (trained.get("source") if isinstance(trained, dict) else None)
    if not isinstance(source, str):
        print_error(
            "No images: attention distances need --data, since the weights do not say theirs."
        )
        return None
    try:
        split = classifier.eval_set(source).split
    except (VitralError, OSError) as error:
        if data is not None:
            raise
        print_error(f"The training data cannot be opened again, so no attention distances: {error}")
        return None
    chosen = np.unique(
        np.linspace(0, len(split) - 1, min(MAX_IMAGES, len(split))).round().astype(int)
    )
    spec = classifier.card.images
    device = classifier.engine.device
    batches = eval_batches(split.select(chosen), spec, batch=16, workers=0)
    return (normalise(batch.images.to(device), spec) for batch in batches if len(batch.images))


def _query(text: str | None) -> Any:
    """Read --query; whether there is such a patch only the model knows."""
    if text is None or text == "cls":
        return text
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"--query is cls or a patch ROW,COLUMN like 3,5, not '{text}'.")
    return int(parts[0]), int(parts[1])


def _folders(paths: list[Path]) -> list[str]:
    """Name a folder for each image, all distinct on any disk, none the table's."""
    taken = {TABLE}
    names = []
    for path in paths:
        stem = path.stem.strip() or "image"
        name = stem
        count = 1
        while name.casefold() in taken:
            count += 1
            name = f"{stem}-{count}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _result(explanation: Explanation, place: Path) -> dict[str, Any]:
    test = explanation.faithfulness
    return {
        **explanation.answer,
        "path": explanation.path,
        "top": [{"label": label, "score": score} for label, score in explanation.top()],
        "unsure": explanation.unsure,
        "foreign": explanation.answer.get("foreign"),
        "method": explanation.method,
        "target": explanation.target,
        "query": explanation.query,
        "layer": explanation.layer,
        "head": explanation.head,
        "faithfulness": None if test is None else test.to_dict(),
        "told": "" if test is None else test.sentence(),
        "written": str(place),
    }


def _print_answer(result: dict[str, Any]) -> None:
    if "labels" in result:
        print_lines([f"labels: {', '.join(result['labels']) or 'none'}"])
    for answer in result["top"]:
        doubts = doubts_of(result) if answer is result["top"][0] else ""
        print_lines([f"{doubts}{answer['label']}  {answer['score']:.3f}"])
    if result["told"]:
        print_lines([f"{result['method']} for {result['target']}: {result['told']}"])
    print_lines([f"written: {result['written']}"])


def _print_summary(results: list[dict[str, Any]], place: Path) -> None:
    tests = [result["faithfulness"] for result in results if result["faithfulness"]]
    for part, doing in (("deletion", "taken away first"), ("insertion", "shown first")):
        if tests:
            good = sum(test[f"{part}_verdict"].startswith("better") for test in tests)
            mean = sum(test[f"{part}_score"] for test in tests) / len(tests)
            of_all = f"on {good} of {len(tests)} images"
            print_lines([f"{doing}: better than random order {of_all}, mean score {mean:+.3f}"])
    print_lines([f"written: {place / TABLE} and {len(results)} folders"])


def _write_table(path: Path, results: list[dict[str, Any]]) -> None:
    from vitral.storage import files

    rows: list[Sequence[object]] = [COLUMNS]
    for result in results:
        best = result["top"][0] if result["top"] else {"label": "", "score": ""}
        test = result["faithfulness"] or {}
        scores = [test.get("deletion_score", ""), test.get("insertion_score", "")]
        doubts = [truth(result["unsure"]), truth(result["foreign"])]  # as in predict's table
        target = result["target"] or ""
        answer = [best["label"], best["score"], target]
        rows.append([result["path"], *answer, *scores, result["written"], *doubts])
    files.write_csv(path, rows)
