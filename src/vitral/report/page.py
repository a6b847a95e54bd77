"""report.html: a run folder, or one evaluation, as one offline page.

    write_report(Path("runs/2026-11-20_flowers_S-16"), lang="ko")

The page makes no request, and its Content-Security-Policy forbids any. Its one script is named
there by its digest, so nothing that came from the user's files could run; all of that is escaped.
What the script adds (images of a cell, sorting, the slider) has a table where it does not run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vitral.classifier import Classifier
from vitral.data.sources import Problem
from vitral.errors import DataError
from vitral.evaluation import Comparison, Evaluation, class_scores
from vitral.report import confusions, facts, reliability, style
from vitral.report.curves import curves, number
from vitral.report.gallery import Example, Images, examples
from vitral.report.record import Record, read_record
from vitral.report.translations import Translations, translations
from vitral.storage import files


def write_report(
    run: Path, examples: Sequence[Example] = (), lang: str = "en", path: Path | None = None
) -> Path:
    """Write the page of a run folder, `run`/report.html or `path`, and return where.

    A part that is not there (yet) is left out of the page. `examples` are its pictures. `lang` is
    "en" or "ko". Raises DataError when `run` is no run folder or a part is damaged, UsageError for
    another language, MachineError when the page cannot be written.
    """
    path = path or Path(run) / "report.html"
    return write_record(path, read_record(Path(run)), examples, translations(lang))


def count_pictures(path: Path) -> int:
    """Count the pictures of a page; 0 where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").count("data:image/")
    except OSError:
        return 0


# of model.json, what a page of one evaluation tells
CARD = ("model", "classes", "labels", "calibration", "made_by")


def write_evaluation_report(  # noqa: PLR0913 - each has a name at every call
    path: Path,
    evaluation: Evaluation,
    split: Images,
    classifier: Classifier,
    lang: str = "en",
    *,
    heading: str = "",
    command: str = "",
    unreadable: Sequence[Problem] = (),
    unknown: Mapping[str, int] | None = None,
    compared: tuple[str, Comparison] | None = None,
) -> Path:
    """Write the page of one evaluation of `classifier` on `split` alone, and return its path.

    Args:
        heading: which model and images (default: the file's name); command: how it was made.
        unreadable, unknown: images that were not scored: files, and counts of unknown classes.
        compared: another model's name, and the comparison of both.
    """
    card = classifier.card
    values = card.to_dict()
    record = Record(
        name=heading or path.stem,
        recipe={},
        command=command,
        environment={},
        training=[],
        validations=[],
        card={name: values.get(name) for name in CARD},
        predictions=evaluation.predictions,
        multi_label=evaluation if evaluation.kind == "multi_label" else None,
        summary=evaluation.to_dict(),
        split=str(getattr(split, "name", "all")),
        unreadable=tuple((problem.path, problem.reason) for problem in unreadable),
        unknown=unknown or {},
        compared=compared,
    )
    language = translations(lang)  # an unknown one is refused before the pictures are made
    pictures = examples(
        split, record.predictions, classifier.model, card.images, kind=evaluation.kind
    )
    return write_record(path, record, pictures, language)


def write_record(
    path: Path,
    record: Record,
    pictures: Sequence[Example],
    language: Translations,
    *,
    missing: str = "",
) -> Path:
    """Write the page of a record, and return its path.

    `missing` says in a sentence why pictures cannot be had: a page in that place that has more of
    them then stays as it is, and DataError is raised.
    """
    template = environment(language).get_template("report.html")
    html = template.render(_content(record, pictures, language))
    before = count_pictures(path)
    after = html.count("data:image/")
    if missing and before > after:
        raise DataError(
            f"{path} has {before} pictures and would have {after}: {missing} It stays as it is. "
            f"Name the images with --data, or write the page without them elsewhere with --out."
        )
    # a file name that is not valid text shows its stray bytes as escapes
    files.write_text(path, html.encode("utf-8", "backslashreplace").decode("utf-8"))
    return path


def environment(language: Translations) -> Environment:
    """Open the templates with their filters, in one language."""
    templates: Any = Environment(
        loader=FileSystemLoader(style.TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
    )
    templates.policies["ext.i18n.trimmed"] = True
    templates.install_gettext_callables(language.gettext, language.ngettext, newstyle=True)
    templates.filters |= {"percent": _percent, "number": number}
    typed: Environment = templates
    return typed


def _content(record: Record, pictures: Sequence[Example], language: Translations) -> dict[str, Any]:
    """Everything that the templates ask for."""
    answers = record.single_label
    classes, matrix = confusions.counted(record)
    scores = class_scores(matrix, classes)
    labels = () if record.multi_label is None else record.multi_label.per_class
    few = 0 < len(classes or labels) <= confusions.MOST_CELLS
    shown = confusions.most_confused(matrix)
    pairs = confusions.pairs(classes, matrix, 10 if few else confusions.MOST_PAIRS)
    cells = confusions.cells(matrix, shown)
    coverage = reliability.coverage_curve(answers, record.threshold) if answers else None
    places = [cell["place"] for row in cells for cell in row if cell["count"]]
    places += [pair["place"] for pair in pairs]
    script = (style.TEMPLATES / "report.js").read_text(encoding="utf-8")
    data: dict[str, Any] = {
        "cells": confusions.images(answers, classes, dict.fromkeys(places)),
        "thumbs": {p.key: _data_uri(p.image) for p in pictures if p.kind == "confusion"},
        "sure": coverage and asdict(coverage),
        "words": _spoken(language),
    }
    return {
        "lang": language.lang,
        "style": style.stylesheet(),
        "script": Markup(script),  # ours, and it must be to the letter what its digest says
        "digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        "data": _json(data),
        "record": record,
        "model": facts.network(record, language),
        "headline": facts.headline(record, scores, language),
        "multi_label": record.multi_label,
        "labels": labels if few else sorted(labels, key=lambda x: x.average_precision or 0.0),
        "scores": scores,
        # a long table begins with what needs attention
        "ranked": scores if few else sorted(scores, key=lambda score: score.recall or 0.0),
        "few": few,
        "names": classes,
        "upright": all(len(name) <= 3 for name in classes),
        "shown": shown,
        "matrix": cells,
        "confusions": pairs,
        "changes": facts.changes(record),
        "sets": facts.answer_sets(record),
        "tree": facts.class_tree(record),
        "curves": curves(record, language),
        "views": _data_uri(record.views) if record.views else "",
        "mistakes": [_shown(p) for p in pictures if p.kind == "mistake"],
        "label_errors": [_shown(p) for p in pictures if p.kind == "label_error"],
        "calibration": record.calibration,
        "diagrams": _diagrams(record.calibration, language),
        "foreign": facts.foreign(record, language),
        "coverage": coverage,
        "coverage_chart": reliability.coverage_chart(coverage, language) if coverage else "",
        "settings": facts.settings(record.recipe, language),
        "environment": facts.rows(record.environment, language),
        "pane_names": style.PANE_NAMES,
    }


def _diagrams(calibration: dict[str, Any], language: Translations) -> list[dict[str, Any]]:
    """One as the model is, and one after its temperature where it has one."""
    titles = {
        "before": language.say("As the model gives them"),
        "after": language.say("After temperature scaling"),
    }
    return [
        {
            "title": title,
            "ece": side["ece"],
            "svg": reliability.reliability_diagram(side, title, language),
        }
        for key, title in titles.items()
        if (side := calibration.get(key))
    ]


def _spoken(language: Translations) -> dict[str, str]:
    """What the script says; it fills in {what} stands in braces."""
    say = language.say
    return {
        "cell": say("{truth} → {predicted}: {count} images"),
        "right": say("{truth}, named rightly: {count} images"),
        "more": say("and {count} more; predictions.csv has them all"),
        "close": say("close"),
        "sort": say("sort by {column}"),
    }


def _shown(example: Example) -> dict[str, Any]:
    return {
        "image": _data_uri(example.image),
        "overlay": _data_uri(example.overlay) if example.overlay else "",
        "key": example.key,
        "truth": example.truth,
        "predicted": example.predicted,
        "score": example.score,
        "label_probability": example.label_probability,
    }


def _json(values: Any) -> Markup:
    """JSON that stands in a <script> element and cannot end it."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _data_uri(picture: bytes) -> str:
    kind = "jpeg" if picture.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def _percent(share: float | None, digits: int = 1) -> str:
    """'94.5 %' with a space that does not break; '–' for nothing."""
    return "–" if share is None else f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"
