"""report.html from whole and partial run folders: escaped, offline, true to the numbers."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from vitral.data.sources import Problem
from vitral.errors import DataError, UsageError
from vitral.evaluation import (
    compare,
    evaluate_multi_label,
    evaluate_single_label,
    write_evaluation,
    write_predictions,
)
from vitral.loading import load
from vitral.model import build
from vitral.report import Example, write_evaluation_report, write_report
from vitral.specs import Calibration, ImageSpec, ModelSpec
from vitral.weights import artifact
from vitral.weights.card import Card

EVIL = '<script>alert("1")</script>'
NAMES = ["골프공", EVIL, "R&D 'x'"]
VOID = {"meta", "img", "br", "path", "circle", "input", "rect"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; every element must be closed in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["script"], ["style"]):
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"[ \n]+", " ", " ".join(self.words))


def page_of(run, examples=(), lang="en"):
    path = write_report(run, examples, lang)
    assert path == run / "report.html"
    return checked(path)


def checked(path):
    """The page; it asks for nothing and runs nothing but its own script."""
    html = path.read_text(encoding="utf-8")
    found = Page(html)
    assert "link" not in found.tags
    links = [value for name, value in found.attributes if name in ("src", "href", "action")]
    assert all(value.startswith("data:image/") for value in links)
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert "url(" not in html
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", html, re.DOTALL)
    assert [kind for kind, _ in scripts] == [' type="application/json" id="data"', ""]
    digest = base64.b64encode(hashlib.sha256(scripts[1][1].encode()).digest()).decode()
    (policy,) = [value for name, value in found.attributes if (value or "").startswith("default-")]
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    assert "unsafe" not in policy.split("script-src")[1]
    found.data = json.loads(scripts[0][1])
    return found


def fill(run, classes, samples=90):
    random = np.random.default_rng(0)
    labels = np.arange(samples) % len(classes)
    logits = random.normal(0, 1, (samples, len(classes)))
    logits[np.arange(samples), labels] += 2
    keys = [f"{classes[label]}/{i}.jpg" for i, label in enumerate(labels)]
    evaluation = evaluate_single_label(logits, labels, classes, keys)
    (run / "best").mkdir(parents=True)
    write_predictions(run / "predictions.csv", evaluation)
    model = {"name": "tiny", "size": [32, 32], "patch": [8, 8], "width": 24, "depth": 2}
    model |= {"heads": 3, "mlp_width": 48, "classes": len(classes)}
    recipe = {"model": model, "optimizer": {"lr": 0.001, "note": EVIL}, "ema": None, "seed": 0}
    content = {"recipe": recipe, "command": f"vitral train {EVIL}", "environment": {"os": EVIL}}
    (run / "recipe.json").write_text(json.dumps(content), encoding="utf-8")
    card = {"model": model, "classes": classes, "made_by": {}, "metrics": {"split": "test"}}
    (run / "best" / "model.json").write_text(json.dumps(card), encoding="utf-8")
    lines = [{"step": i, "epoch": i / 4, "loss": 2 / i, "lr": 0.1} for i in range(1, 9)]
    lines += [{"step": 8, "epoch": 2, "val_accuracy": 0.5, "val_interval": [0.4, 0.6]}]
    text = "\n".join(json.dumps(line) for line in lines)
    (run / "metrics.jsonl").write_text(text, encoding="utf-8")
    return evaluation


def picture(kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (12, 12), "red").save(buffer, kind)
    return buffer.getvalue()


def test_a_whole_run(tmp_path):
    evaluation = fill(tmp_path / "run", NAMES)
    examples = [
        Example(image=picture(), truth=EVIL, predicted="골프공", score=0.987, overlay=picture()),
        Example(image=picture("JPEG"), truth="골프공", predicted=EVIL, score=0.5),
    ]
    found = page_of(tmp_path / "run", examples)
    low, high = evaluation.interval
    assert f"{100 * low:.1f}\N{NO-BREAK SPACE}% to {100 * high:.1f}" in found.text
    assert f"{evaluation.correct} of 90 test images" in found.text
    for word in (*NAMES, "Loss", "Learning rate", "Class by class", "99\N{NO-BREAK SPACE}%"):
        assert word in found.text
    assert f"vitral train {EVIL}" in found.text
    counts = [int(w) for w in found.words if re.fullmatch(r"\d+", w.strip())]
    assert set(evaluation.confusion[evaluation.confusion > 0].tolist()) <= set(counts)
    assert found.data["thumbs"] == {}
    sources = [value.split(";")[0] for name, value in found.attributes if name == "src"]
    assert sources == ["data:image/png", "data:image/png", "data:image/jpeg"]


def test_many_classes_show_the_top_confusions_instead_of_the_matrix(tmp_path):
    fill(tmp_path / "few", [f"class {i}" for i in range(30)], 300)
    fill(tmp_path / "many", [f"class {i}" for i in range(200)], 1000)
    few, many = page_of(tmp_path / "few"), page_of(tmp_path / "many")
    assert "Rows are the truth" in few.text
    assert "most confused of" in many.text
    assert "most confused of" not in few.text
    assert few.tags.count("table") == many.tags.count("table") == 4
    assert "confusions between 200 classes" in many.text
    assert (tmp_path / "many" / "report.html").stat().st_size < 300_000


@pytest.mark.parametrize(
    ("kept", "present", "absent"),
    [
        ("recipe.json", ["How to do it again", "tiny"], ["How it learned", "Class by class"]),
        ("metrics.jsonl", ["How it learned", "40.0"], ["Class by class", "do it again"]),
        ("predictions.csv", ["Class by class", "validation images"], ["How it learned"]),
        ("best/model.json", ["tiny"], ["Class by class", "of the test images"]),
    ],
)
def test_each_part_alone_is_a_page(tmp_path, kept, present, absent):
    fill(tmp_path, NAMES)
    for part in ("recipe.json", "metrics.jsonl", "predictions.csv", "best/model.json"):
        if part != kept:
            (tmp_path / part).unlink()
    text = page_of(tmp_path).text
    assert all(word in text for word in present)
    assert not any(word in text for word in absent)


def test_the_card_alone_gives_the_headline(tmp_path):
    (tmp_path / "best").mkdir()
    metrics = {"accuracy": 0.9, "interval": [0.85, 0.94], "samples": 200, "split": "test"}
    card = {"model": {"unknown": 1}, "classes": NAMES, "metrics": metrics}
    (tmp_path / "best" / "model.json").write_text(json.dumps(card), encoding="utf-8")
    text = page_of(tmp_path).text
    assert "180 of 200 test images" in text
    assert "85.0\N{NO-BREAK SPACE}% to 94.0" in text


def small(kind, key):
    return Example(
        image=picture(),
        truth="a",
        predicted="b",
        score=0.9,
        label_probability=0.05,
        key=key,
        kind=kind,
    )


def test_each_picture_in_its_place(tmp_path):
    evaluation = fill(tmp_path, NAMES)
    key = evaluation.predictions[0].key
    kinds = ("confusion", "label_error")
    found = page_of(tmp_path, [small(kind, key) for kind in kinds])
    assert set(found.data["thumbs"]) == {key}
    assert found.tags.count("img") == 1
    assert "Likely label errors" in found.text
    assert "Candidates to look at" in found.text
    assert "labelled a 5\N{NO-BREAK SPACE}%" in found.text
    assert "Most confident mistakes" not in found.text


def test_the_images_of_every_cell_and_nothing_that_ends_the_script(tmp_path):
    evaluation = fill(tmp_path, NAMES)
    cells = page_of(tmp_path).data["cells"]
    assert len(cells) == np.count_nonzero(evaluation.confusion)
    for place, cell in cells.items():
        truth, guess = map(int, place.split(","))
        assert cell["count"] == evaluation.confusion[truth, guess]
        assert (cell["truth"], cell["predicted"]) == (NAMES[truth], NAMES[guess])
        wanted = {p.key for p in evaluation.predictions if p.label == NAMES[truth]}
        assert {key for key, _ in cell["images"]} <= wanted
    assert sum(cell["count"] for cell in cells.values()) == 90


def calibrated(run):
    """A run whose evaluation.json tells of a temperature."""
    random = np.random.default_rng(0)
    labels, logits = np.arange(90) % 7, random.normal(0, 3, (90, 7))
    logits[np.arange(90), labels] += 4
    names, keys = [f"k{i}" for i in range(7)], [f"{i}.jpg" for i in range(90)]
    found = Calibration(temperature=1.5, threshold=0.625, target=0.95, samples=90)
    evaluation = evaluate_single_label(logits, labels, names, keys, calibration=found)
    run.mkdir(exist_ok=True)
    write_predictions(run / "predictions.csv", evaluation)
    write_evaluation(run / "evaluation.json", evaluation)
    return evaluation


def shown(share):
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def test_scores_with_their_intervals_and_the_calibration(tmp_path):
    evaluation = calibrated(tmp_path)
    found = page_of(tmp_path)
    for name, score, interval in (
        ("Top-5 accuracy", evaluation.top5, evaluation.top5_interval),
        ("Macro-F1", evaluation.macro_f1, evaluation.macro_f1_interval),
    ):
        text = f"{name} {shown(score)} {shown(interval[0])} to {shown(interval[1])}"
        assert text in re.sub(" +", " ", found.text)
    told = evaluation.to_dict()["calibration"]
    assert f"ECE {shown(told['before']['ece'])}" in found.text
    assert f"ECE {shown(told['after']['ece'])}" in found.text
    assert "softmax(logits / 1.5)" in found.text
    assert found.data["sure"]["thresholds"][found.data["sure"]["start"]] == 0.625
    assert "This model's is 62.5" in found.text
    for score in evaluation.per_class:
        low, high = (round(100 * bound, 1) for bound in score.precision_interval)
        assert f"{low}–{high}" in found.text
    path = tmp_path / "evaluation.json"
    assert told["cross_fitted"] is False and "not chosen on" not in found.text
    own = json.loads(path.read_text(encoding="utf-8"))
    own["calibration"] |= {"cross_fitted": True, "coverage": 0.5, "accuracy_when_sure": 0.875}
    path.write_text(json.dumps(own), encoding="utf-8")
    text = page_of(tmp_path).text
    assert f"not chosen on, {shown(0.5)} are answered and {shown(0.875)} of those" in text
    path.unlink()
    without = page_of(tmp_path)
    assert "Macro-F1" not in without.text and "ECE" not in without.text
    assert without.data["sure"]["start"] == 0


def test_in_korean_and_elsewhere(tmp_path):
    evaluation = fill(tmp_path, NAMES)
    path = write_report(tmp_path, lang="ko", path=tmp_path / "ko.html")
    assert path == tmp_path / "ko.html"
    assert not (tmp_path / "report.html").exists()
    found = checked(path)
    assert ("lang", "ko") in found.attributes
    assert f"테스트 이미지 90장 중 {evaluation.correct}장" in found.text
    for word in (*NAMES, "클래스별 성능", "손실", "재현 방법", f"vitral train {EVIL}"):
        assert word in found.text
    for word in ("Class by class", "Loss", "images are named", "interval", "threshold"):
        assert word not in found.text
    with pytest.raises(UsageError, match="en or ko"):
        write_report(tmp_path, lang="fr")


def test_the_sheet_of_views_has_its_place(tmp_path):
    fill(tmp_path, NAMES)
    assert "What the model saw" not in page_of(tmp_path).text
    (tmp_path / "views.jpg").write_bytes(picture("JPEG"))
    found = page_of(tmp_path)
    assert "What the model saw" in found.text
    assert found.tags.count("img") == 1


class Grey:
    name = "all"

    def __len__(self):
        return 40

    def key(self, index):
        return f"{index}.png"

    def read(self, index):
        return np.full((16, 16, 3), 5 * index, np.uint8)


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_page_of_one_evaluation(tmp_path, multi_label):
    spec = ModelSpec(
        name="tiny", size=16, patch=8, width=24, depth=1, heads=3, mlp_width=48, classes=3
    )
    card = Card(
        model=spec,
        images=ImageSpec(size=(16, 16)),
        classes=tuple(NAMES),
        labels="several" if multi_label else "one",
    )
    artifact.save(tmp_path / "model", build(spec).state_dict(), card)
    random, keys = np.random.default_rng(0), [Grey().key(i) for i in range(40)]
    labels, logits = np.arange(40) % 3, random.normal(0, 1, (40, 3))
    if multi_label:
        evaluation = evaluate_multi_label(logits, labels[:, None] == np.arange(3), NAMES, keys)
    else:
        evaluation = evaluate_single_label(logits, labels, NAMES, keys)
    classifier = load(tmp_path / "model", device="cpu")
    path = tmp_path / "on new photos.html"
    assert write_evaluation_report(path, evaluation, Grey(), classifier, "en") == path
    found = checked(path)
    assert "on new photos" in found.text
    assert "given images" in found.text
    assert ("How far its probabilities" in found.text) == (not multi_label)
    assert "How it learned" not in found.text
    assert "do it again" not in found.text
    assert found.tags.count("img") == 2 * (12 + 12 * (not multi_label)) or not multi_label
    with pytest.raises(UsageError, match="en or ko"):
        write_evaluation_report(path, evaluation, Grey(), classifier, "fr")


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_the_page_says_what_was_not_counted_and_who_is_better(tmp_path, lang):
    spec = ModelSpec(
        name="tiny", size=16, patch=8, width=24, depth=1, heads=3, mlp_width=48, classes=3
    )
    card = Card(model=spec, images=ImageSpec(size=(16, 16)), classes=tuple(NAMES))
    artifact.save(tmp_path / "model", build(spec).state_dict(), card)
    labels, keys = np.arange(40) % 3, [Grey().key(i) for i in range(40)]
    right, shifted = 5.0 * np.eye(3)[labels], 5.0 * np.eye(3)[(labels + (labels == 2)) % 3]
    evaluation = evaluate_single_label(shifted, labels, NAMES, keys)
    other = evaluate_single_label(right, labels, NAMES, keys)
    lost = [Problem(f"<{index}>.jpg", "The file is empty.") for index in range(23)]
    path = write_evaluation_report(
        tmp_path / "page.html",
        evaluation,
        Grey(),
        load(tmp_path / "model", device="cpu"),
        lang,
        unreadable=lost,
        unknown={"wolf": 1200, "fox": 3},
        compared=("runs/b & c", compare(evaluation, other)),
    )
    found = checked(path)
    assert "<19>.jpg" in found.text and "<20>.jpg" not in found.text
    assert "wolf (1\N{NARROW NO-BREAK SPACE}200), fox (3)" in found.text
    assert "-32.5" in found.text
    told = "runs/b & c is better than this model" if lang == "en" else "runs/b & c가 이 모델보다"
    assert told in found.text
    assert ("Not counted" in found.text) == (lang == "en")


def test_selection_on_the_same_images_is_said(tmp_path):
    fill(tmp_path, NAMES)
    path = tmp_path / "best" / "model.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    card["metrics"]["selected"] = "best"
    path.write_text(json.dumps(card), encoding="utf-8")
    assert "the best of" not in page_of(tmp_path).text  # one validation is no choice
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"step": 4, "epoch": 1, "val_accuracy": 0.4, "val_interval": [0.3, 0.5]}')
    assert "the best of 2 validations" in page_of(tmp_path).text


def test_a_class_without_images_and_a_name_that_is_not_text(tmp_path):
    evaluate_one = evaluate_single_label([[2.0, 0.0]], [0], ["가", "나\udcff"], ["a\udcff.jpg"])
    write_predictions(tmp_path / "predictions.csv", evaluate_one)
    (tmp_path / "best").mkdir()
    card = json.dumps({"classes": ["가", "나\udcff"]})
    (tmp_path / "best" / "model.json").write_text(card, encoding="utf-8")
    text = page_of(tmp_path).text
    assert "–" in text
    assert "나\\udcff" in text


def test_no_run_folder(tmp_path):
    with pytest.raises(DataError, match="is not a run folder"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def fill_multi_label(run, classes, samples=60):
    random = np.random.default_rng(0)
    labels = random.random((samples, len(classes))) < 0.4
    labels[:, -1] = False
    logits = random.normal(0, 1, labels.shape) + 2.5 * labels - 1
    keys = [f"{i}.jpg" for i in range(samples)]
    evaluation = evaluate_multi_label(logits, labels, classes, keys)
    (run / "best").mkdir(parents=True)
    write_predictions(run / "predictions.csv", evaluation)
    metrics = {"mean_average_precision": 0.5, "accuracy": 0.25, "interval": [0.4, 0.6]}
    metrics |= {"samples": 60, "split": "val", "selected": "best"}
    card = {"classes": classes, "labels": "several", "metrics": metrics}
    (run / "best" / "model.json").write_text(json.dumps(card), encoding="utf-8")
    line = {"val_accuracy": 0.2, "val_score": 0.7, "val_interval": [0.6, 0.8]}
    lines = [{"step": 2, "epoch": 1, **line}, {"step": 4, "epoch": 2, **line}]
    text = "\n".join(json.dumps(line) for line in lines)
    (run / "metrics.jsonl").write_text(text, encoding="utf-8")
    return evaluation


def test_multi_labels(tmp_path):
    evaluation = fill_multi_label(tmp_path, NAMES)
    example = Example(image=picture(), truth="골프공, " + EVIL, predicted="nothing", score=0.9)
    found = page_of(tmp_path, [example])
    low, high = evaluation.interval
    assert f"{100 * low:.1f}\N{NO-BREAK SPACE}% to {100 * high:.1f}" in found.text
    assert f"{round(60 * evaluation.accuracy)} of 60 validation images get exactly" in found.text
    assert f"No image has {NAMES[2]}" in found.text
    assert "Mean average precision over 2 of 3 classes" in found.text
    assert "the best of 2 validations" in found.text
    for score in evaluation.per_class[:2]:
        assert f"{100 * score.average_precision:.1f}\N{NO-BREAK SPACE}%" in found.text
    assert "a class too many" in found.text
    assert "labelled 골프공, " + EVIL in found.text
    for absent in ("taken for what", "named rightly", "commonest", "surest of."):
        assert absent not in found.text


def test_many_classes_of_multi_labels_begin_with_the_worst(tmp_path):
    evaluation = fill_multi_label(tmp_path, [f"class {i};" for i in range(40)])
    text = page_of(tmp_path).text
    scored = [s for s in evaluation.per_class if s.average_precision is not None]
    order = sorted(scored, key=lambda score: score.average_precision)
    places = [text.index(f" {score.name} ") for score in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("kept", "present"),
    [
        ("best/model.json", ["15 of 60 validation images get exactly", "40.0", " 50.0 "]),
        ("metrics.jsonl", ["60.0", " 70.0 "]),
    ],
)
def test_multi_labels_without_predictions(tmp_path, kept, present):
    fill_multi_label(tmp_path, NAMES)
    for part in ("metrics.jsonl", "predictions.csv", "best/model.json"):
        if part != kept:
            (tmp_path / part).unlink()
    text = page_of(tmp_path).text
    assert all(word in text for word in ["Mean average precision", *present])
    assert "named rightly" not in text
