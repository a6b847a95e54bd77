"""The README.md of an artifact: what the hub's front matter wants, and what a person asks.

    text = model_card.text(card.to_dict(), licence="apache-2.0")

Written from what model.json says alone, after `public` has taken from it what tells of the machine
that it was made on. A name of the user's stands only in code spans and fences, so that none of it
is read as Markdown, HTML or YAML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath, PureWindowsPath
from typing import Any

from vitral.catalog.checkpoints import checkpoint
from vitral.data.builtin import BUILT_IN
from vitral.specs import ImageSpec, ModelSpec, counts
from vitral.storage import remote

FILE = "README.md"
LICENCE = "unknown"  # the hub's word for a licence that nobody stated
MOST_CLASSES = 1000  # that the card lists
_NAMES = ("classes", "known", "rename")  # fields that hold names of classes, whatever these are
_PLACES = ("source", "start", "teacher", "target", "weights", "out")  # fields that may be paths
# a path of two parts at least, not the rest of an address; what a sentence quotes
_PATH = re.compile(r"(?<![\w:/.~-])(?:~|[A-Za-z]:)?(?:[\\/][^\s\\/'\",;:()<>]+){2,}[\\/]?")
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")


def public(values: Any, field: str = "") -> Any:
    """Return plain JSON values in which every path on this machine is its last part alone.

    Ids, addresses and built-in names stay. `field` is the name that the value stands under.
    """
    if isinstance(values, Mapping):
        return {name: public(value, str(name)) for name, value in values.items()}
    if field in _NAMES:
        return values
    if isinstance(values, list | tuple):
        return [public(value, field) for value in values]
    if not isinstance(values, str):
        return values
    if field in _PLACES:
        return _place(values, may_be_id=field != "source")
    return _PATH.sub(lambda found: _last(found[0]), values)


def public_card(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a model.json that may be shown to anybody; see `public`."""
    return {**values, "made_by": public(values["made_by"])}


def _place(text: str, *, may_be_id: bool) -> str:
    """A source or weights by the name that they have elsewhere too."""
    if text in BUILT_IN or text.startswith("hf:") or checkpoint(text) is not None:
        return text
    if remote.is_remote(text):
        return re.sub(r"//[^/@]*@", "//", text).partition("?")[0]  # no log-in, no signed address
    return text if may_be_id and _HUB_ID.fullmatch(text) else _last(text)


def _last(text: str) -> str:
    kind = PureWindowsPath if "\\" in text else PurePath
    return kind(text).name or text.strip("/\\.~")


def text(
    values: Mapping[str, Any],
    *,
    licence: str | None = None,
    library: str = "vitral",
    repo: str | None = None,
) -> str:
    """Return the model card: front matter, and sections in Markdown.

    Args:
        values: the content of model.json.
        licence: an identifier of the hub's list, such as "apache-2.0"; None: nobody stated one.
        library: whose files lie beside it: "vitral", "timm" or "transformers".
        repo: the id that it will have; None for a folder.
    """
    from huggingface_hub import ModelCard  # noqa: PLC0415 - half a second

    values = public_card(values)
    front = _front_matter(values, licence, library, repo)
    body = "\n".join(_body(values, licence, library, repo))
    card = ModelCard(f"---\n{front.to_yaml()}\n---\n\n{body}", ignore_metadata_errors=False)
    return str(card)


def with_licence(text: str, licence: str) -> str:
    """Return a model card with another licence in its front matter, all else as it is."""
    from huggingface_hub import ModelCard  # noqa: PLC0415 - half a second

    card = ModelCard(text, ignore_metadata_errors=True)
    setattr(card.data, "license", licence)  # noqa: B010 - typed without it
    return str(card)


def _front_matter(
    values: Mapping[str, Any], licence: str | None, library: str, repo: str | None
) -> Any:
    from huggingface_hub import EvalResult, ModelCardData  # noqa: PLC0415 - half a second

    classifies = bool(values["classes"])
    task = "image-classification" if classifies else "image-feature-extraction"
    results = []
    metrics = values["metrics"]
    made_by = values["made_by"]
    score = _headline(metrics)
    if classifies and score is not None:
        name, value = score
        data = _mapping(made_by.get("data"))
        source = str(data.get("source") or "not stated")
        results.append(
            EvalResult(
                task_type=task,
                dataset_type=source,
                dataset_name=source,
                dataset_split=str(metrics.get("split", "val")),
                metric_type=name,
                metric_name=name.replace("_", " "),
                metric_value=value,
                metric_args={
                    "interval_95": metrics.get("interval"),
                    "samples": metrics.get("samples"),
                },
            )
        )
    origin = _origin(made_by)
    base = origin if origin is not None and _HUB_ID.fullmatch(origin) else None
    return ModelCardData(
        license=licence or LICENCE,
        library_name=library,
        pipeline_tag=task,
        tags=["vitral", "vision-transformer", task],
        base_model=base,
        model_name=repo or str(values["model"]["name"]),
        eval_results=results or None,
    )


def _origin(made_by: Mapping[str, Any]) -> str | None:
    """The weights that it began from or was converted from; None for none."""
    start = _mapping(made_by.get("recipe")).get("start")
    origin = start or _mapping(made_by.get("converted")).get("source")
    return str(origin) if origin else None


def _headline(metrics: Mapping[str, Any]) -> tuple[str, float] | None:
    """The name and the value of the score that has the interval."""
    for name in ("mean_average_precision", "accuracy"):
        value = metrics.get(name)
        if isinstance(value, int | float):
            return name, float(value)
    return None


def _body(
    values: Mapping[str, Any], licence: str | None, library: str, repo: str | None
) -> Iterator[str]:
    spec = ModelSpec.from_dict(dict(values["model"]))
    made_by = values["made_by"]
    yield f"# {code(repo or spec.name)}\n"
    yield (
        f"A Vision Transformer ({code(spec.name)}, {counts.parameters(spec) / 1e6:.3g} M "
        f"parameters) for pictures of {spec.size[0]} x {spec.size[1]} pixels, made with Vitral.\n"
    )
    yield from _use(library, repo)
    yield from _results(values["metrics"])
    yield from _data(values)
    yield "## Preprocessing\n"
    yield f"{ImageSpec.from_dict(dict(values['images'])).sentence}\n"
    yield from _limits(values, library)
    yield "## Licence\n"
    yield f"{code(licence)}.\n" if licence else "Not stated by whoever made it.\n"
    origin = _origin(made_by)
    if origin is not None:
        row = checkpoint(origin)
        known = f" (licence: {row.licence})" if row is not None else ""
        came = "It began from" if made_by.get("recipe") else "It was converted from"
        yield f"{came} the weights {code(origin)}{known}.\n"
    yield from _again(made_by, library, repo)


def _use(library: str, repo: str | None) -> Iterator[str]:
    name = repo or "FOLDER"
    yield "## Use\n"
    match library:
        case "timm":
            lines = ["import timm", f'model = timm.create_model("hf-hub:{name}", pretrained=True)']
        case "transformers":
            lines = [
                "from transformers import pipeline",
                f'pipeline("image-classification", model="{name}")("photo.jpg")',
            ]
        case _:
            lines = ["import vitral", f'vitral.load("{name}").predict("photo.jpg").label']
    yield "\n".join(["```python", *lines, "```"]) + "\n"
    if library == "vitral":
        yield f"```console\nvitral predict {name} photo.jpg\n```\n"


def _results(metrics: Mapping[str, Any]) -> Iterator[str]:
    score = _headline(metrics)
    interval = metrics.get("interval")
    if score is None or not isinstance(interval, list | tuple) or len(interval) != 2:
        return
    low, high = (100 * float(bound) for bound in interval)
    yield "## Results\n"
    yield (
        f"{score[0].replace('_', ' ').capitalize()} {100 * score[1]:.2f} % (95 %: {low:.2f} to "
        f"{high:.2f}) on {metrics.get('samples', '?')} images that were not trained on "
        f"({code(str(metrics.get('split', 'val')))})."
    )
    if metrics.get("selected") == "best":
        yield (
            "The weights are the best of several validations on these same images, so expect a "
            "little less on new ones."
        )
    yield ""


def _data(values: Mapping[str, Any]) -> Iterator[str]:
    made_by = values["made_by"]
    data = _mapping(made_by.get("data"))
    classes = [str(name) for name in values["classes"]]
    yield "## Data and classes\n"
    if data.get("source"):
        counted = ", ".join(f"{data[part]:,} {part}" for part in data if _counted(data[part]))
        yield f"Images: {code(str(data['source']))}" + (f" ({counted})." if counted else ".")
    else:
        yield "The images that it learnt from are not stated."
    if not classes:
        yield "\nIt has no head: it gives features and names no class.\n"
        return
    several = values.get("labels") == "several"
    kind = "any number of them to an image" if several else "one of them to an image"
    yield f"\n{len(classes):,} classes, {kind}, in the order of the logits:\n"
    yield fence([json.dumps(name, ensure_ascii=False) for name in classes[:MOST_CLASSES]])
    if len(classes) > MOST_CLASSES:
        yield f"and {len(classes) - MOST_CLASSES:,} more, in `model.json`.\n"


def _limits(values: Mapping[str, Any], library: str) -> Iterator[str]:
    yield "## Limits\n"
    if not values["classes"]:
        yield "What its features are good for has to be measured on the task at hand.\n"
        return
    calibration = values.get("calibration")
    if isinstance(calibration, Mapping):
        yield (
            f"Below a probability of {float(calibration['threshold']):.3f} an answer is called "
            f"unsure; above it {100 * float(calibration['target']):.0f} % were right on "
            f"{calibration['samples']} held-out images. A picture of something else can be sure."
        )
    foreign = _mapping(_mapping(values["made_by"].get("fitted")).get("foreign"))
    # other libraries' files have no place for what tells foreign pictures
    if library == "vitral" and isinstance(foreign.get("kept"), int | float):
        kept = f"{100 * foreign['kept']:.0f} %"
        yield (
            f"A picture is called foreign where it lies farther from what was learnt than {kept} "
            f"of the held-out images do. What it is compared with, what the network computed of "
            f"images that it learnt from, lies in `calibration.safetensors`; no picture does."
        )
        auroc = _mapping(foreign.get("auroc_of_held_out_classes")).get(str(foreign.get("kind")))
        if isinstance(auroc, int | float):
            yield f"On classes held out to choose how, the AUROC was {auroc:.3f}."
        yield "Other foreign pictures were not measured: `vitral evaluate --foreign OTHERS/` does."
    else:
        yield (
            "It names one of its classes for whatever it is shown; how many foreign pictures it "
            "takes for its own was not measured."
        )
    yield "Other cameras, places and times than those of its images were not tested.\n"


def _again(made_by: Mapping[str, Any], library: str, repo: str | None) -> Iterator[str]:
    recipe = _mapping(made_by.get("recipe"))
    environment = _mapping(made_by.get("environment"))
    if not recipe:
        return
    source = str(_mapping(recipe.get("data")).get("source", ""))
    images = source if source in BUILT_IN or source.startswith("hf:") else "PHOTOS/"
    yield "## How to make it again\n"
    if library == "vitral":  # whose model.json has the recipe
        yield fence([f"vitral repeat {repo or 'FOLDER'} {images} --out AGAIN"], "console")
        yield "The recipe stands in `model.json` (`made_by.recipe`)."
    versions = ", ".join(
        f"{name} {environment[name]}"
        for name in ("vitral", "torch", "python")
        if environment.get(name)
    )
    yield f"Made with {versions or 'versions that are not stated'}."


def code(text: str) -> str:
    """Return a text as a code span of Markdown, in which nothing of it has a meaning."""
    shown = json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    ticks = max((len(run) for run in re.findall("`+", shown)), default=0)
    around = "`" * (ticks + 1)
    pad = " " if ticks else ""
    return f"{around}{pad}{shown}{pad}{around}"


def fence(lines: list[str], language: str = "") -> str:
    """Return lines as a fenced block of Markdown that none of them can end."""
    ticks = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    around = "`" * max(3, ticks + 1)
    return "\n".join([f"{around}{language}", *lines, around]) + "\n"


def _counted(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
