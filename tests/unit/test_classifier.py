import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import randomised
from PIL import Image

import vitral
from drawn import draw_folder
from multi_label import multi_label_artifact
from vitral import catalog
from vitral.classifier import Answer, Classifier
from vitral.data.datasets import open_dataset
from vitral.engines.base import Precision
from vitral.errors import DataError, ModelError, SpecError, UsageError
from vitral.evaluation import MultiLabelEvaluation, SingleLabelEvaluation
from vitral.explanation import ExplainRequest, Explanation, explain
from vitral.specs import Calibration, ImageSpec
from vitral.weights import artifact
from vitral.weights.card import Card


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/ (40 files in 2 classes) and run/, trained on them."""
    path = tmp_path_factory.mktemp("classifier")
    draw_folder(path / "photos", kinds=2, each=20)
    vitral.train(
        path / "photos",
        model="mu/8",
        size=32,
        epochs=1,
        out=path / "run",
        changes=["data.workers=0", "data.batch=8"],
    )
    return path


@pytest.fixture
def clf(folder: Path) -> Classifier:
    return vitral.load(folder / "run")


def test_every_kind_of_picture_gives_the_same_answer(folder: Path, clf: Classifier) -> None:
    path = next((folder / "photos").rglob("*.jpg"))
    with Image.open(path) as file:
        image = file.convert("RGB")
    answers = [
        clf.predict(picture)
        for picture in (path, str(path), path.read_bytes(), image, np.asarray(image))
    ]
    assert {answer.label for answer in answers} <= set(clf.classes)
    assert len({answer.top for answer in answers}) == 1
    assert answers[0].path == str(path)
    assert answers[2].path == ""
    assert sum(score for _, score in answers[0].top) == pytest.approx(1, abs=1e-5)


def test_top_and_what_cannot_be_read(clf: Classifier, tmp_path: Path) -> None:
    grey = np.zeros((9, 9, 3), np.uint8)
    assert len(clf.predict(grey, top=1).top) == 1
    assert len(clf.predict(grey, top=50).top) == 2
    with pytest.raises(UsageError):
        clf.predict(grey, top=0)
    with pytest.raises(DataError, match="/dev/zero is not a file"):
        clf.predict("/dev/zero")
    with pytest.raises(DataError, match="cannot be read"):
        clf.predict(tmp_path / "nothing.jpg")


def test_files_are_answered_in_order_and_batches_change_nothing(
    folder: Path, clf: Classifier, tmp_path: Path
) -> None:
    paths = sorted((folder / "photos").rglob("*.jpg"))[:7]
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    paths.insert(3, broken)
    results = list(clf.predict_files(paths, batch=3))
    assert isinstance(results[3], tuple)
    assert results[3][0] == broken
    for path, result in zip(paths, results, strict=True):
        if path != broken:
            assert isinstance(result, Answer)
            assert result.path == str(path)
            assert result.score == pytest.approx(clf.predict(path).score, abs=1e-5)


def test_the_training_folder_is_scored_on_what_training_held_out(
    folder: Path, clf: Classifier
) -> None:
    opened = open_dataset(folder / "photos")
    split = clf.eval_set(folder / "photos").split
    held_out = {opened.val.key(i) for i in range(len(opened.val))}
    assert {split.key(i) for i in range(len(split))} == held_out
    assert clf.evaluate(split).samples == len(held_out)


def test_another_folder_is_scored_whole(clf: Classifier, tmp_path: Path) -> None:
    other = draw_folder(tmp_path / "other", kinds=2, each=3, first=900)
    assert clf.evaluate(other).samples == 6


def test_logits_are_the_engine_and_the_model(folder: Path) -> None:
    clf = vitral.load(folder / "run", precision="fp32")  # some machines choose bf16
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(clf.logits(images), clf.model(images), atol=1e-6)


def test_probabilities_are_calibrated_and_the_unsure_are_said(
    folder: Path, clf: Classifier
) -> None:
    fitted = clf.card.calibration
    assert fitted is not None and fitted.samples == 8
    paths = sorted((folder / "photos").rglob("*.jpg"))
    logits = torch.cat([clf.logits(clf.prepare(path)[None]) for path in paths])
    scores = (logits / 3.0).softmax(dim=1).max(dim=1).values.tolist()
    middle = sorted(scores)[20]
    for threshold, unsure in ((middle + 1e-6, 21), (0.0, 0), (1.0, 40)):
        calibration = replace(fitted, temperature=3.0, threshold=threshold)
        other = replace(clf, card=replace(clf.card, calibration=calibration))
        answers = [answer for answer in other.predict_files(paths) if isinstance(answer, Answer)]
        assert [answer.score for answer in answers] == pytest.approx(scores, abs=1e-5)
        assert [answer.unsure for answer in answers] == [score < threshold for score in scores]
        assert sum(answer.unsure for answer in answers) == unsure
        assert answers[0].to_dict()["unsure"] is answers[0].unsure
        quick = ExplainRequest(method="relevance", steps=0, details=False)
        assert other.explain(paths[0], quick).unsure is answers[0].unsure
    none = replace(clf, card=replace(clf.card, calibration=None))
    plain = none.predict(paths[0])
    assert plain.score == pytest.approx(logits[0].softmax(dim=0).max().item(), abs=1e-5)
    assert plain.unsure is False


def test_the_images_it_was_calibrated_on_are_cross_fitted_and_others_are_not(
    folder: Path, clf: Classifier, tmp_path: Path
) -> None:
    own = clf.evaluate(folder / "photos")
    assert isinstance(own, SingleLabelEvaluation) and own.reliability.cross_fitted
    assert own.reliability.calibration == clf.card.calibration
    written = json.loads((folder / "run" / "evaluation.json").read_text(encoding="utf-8"))
    assert own.to_dict()["calibration"]["coverage"] == written["calibration"]["coverage"]
    other = clf.evaluate(draw_folder(tmp_path / "other", kinds=2, each=3, first=900))
    assert isinstance(other, SingleLabelEvaluation) and not other.reliability.cross_fitted


def test_unknown_classes_and_small_data_have_sensible_numbers(
    clf: Classifier, tmp_path: Path
) -> None:
    photos = draw_folder(tmp_path / "photos", kinds=2, each=2, first=900)
    first, second = clf.classes
    (photos / second).rename(photos / "stranger")
    with pytest.raises(DataError, match=r"'stranger' that the model .*allow-unknown"):
        clf.eval_set(photos)
    (photos / second).mkdir()  # an empty class
    next((photos / first).iterdir()).unlink()  # and a single image of the other
    found = clf.eval_set(photos, allow_unknown=True)
    assert (len(found.split), found.unknown) == (1, {"stranger": 2})
    assert not found.held_out_by_training
    evaluation = clf.evaluate(found)
    assert isinstance(evaluation, SingleLabelEvaluation)
    empty = next(score for score in evaluation.per_class if score.name == second)
    assert empty.recall is empty.recall_interval is None
    low, high = evaluation.interval
    assert high - low > 0.7
    low, high = evaluation.macro_f1_interval
    assert high - low > 0.7
    json.dumps(evaluation.to_dict(), allow_nan=False)


def test_a_model_without_a_head_says_what_can_be_done(clf: Classifier, folder: Path) -> None:
    spec = replace(clf.card.model, classes=0)
    headless = replace(clf, card=replace(clf.card, model=spec, classes=(), calibration=None))
    with pytest.raises(ModelError, match=r"no head.*--probe"):
        headless.evaluate(folder / "photos")


def test_explain(clf: Classifier, folder: Path, tmp_path: Path) -> None:
    path = next((folder / "photos").rglob("*.jpg"))
    explanation = clf.explain(path)
    assert explanation.heatmap.shape == (4, 4)
    assert explanation.top(1)[0][0] == clf.predict(path).label
    explanation.save(tmp_path / "e.png")
    with Image.open(tmp_path / "e.png") as figure:
        assert figure.width > 200


SQUARE = ImageSpec(size=(32, 32))
PADDED = ImageSpec(size=(32, 48), fit="pad", crop=0.9, mean=(0.4, 0.5, 0.6))
DOUBT = Calibration(temperature=0.7, threshold=0.4, target=0.9, samples=40)


def drawn_classifier(
    folder: Path, images: ImageSpec, precision: Precision, **changes: Any
) -> Classifier:
    """A network of random weights, large enough that bfloat16 changes some of its answers."""
    card_changes = {
        name: changes.pop(name) for name in ("labels", "calibration") if name in changes
    }
    spec = catalog.model("mu/8", size=images.size, classes=4, **changes)
    model = randomised(spec, seed=3).float()
    card = Card(model=spec, images=images, classes=("a", "b", "c", "d"))
    artifact.save(folder, model.state_dict(), replace(card, **card_changes))
    return vitral.load(folder, precision=precision, device="cpu")


@pytest.mark.parametrize(
    ("images", "precision", "changes"),
    [
        (SQUARE, "bf16", {}),
        (SQUARE, "bf16", {"calibration": DOUBT}),
        (PADDED, "bf16", {"labels": "several"}),
        (PADDED, "fp32", {"calibration": DOUBT}),
        (SQUARE, "bf16", {"distillation_token": True}),
    ],
)
def test_the_answer_within_an_explanation_is_that_of_predict(
    folder: Path, tmp_path: Path, images: ImageSpec, precision: Precision, changes: dict[str, Any]
) -> None:
    clf = drawn_classifier(tmp_path / "drawn", images, precision, **changes)
    paths = sorted((folder / "photos").rglob("*.jpg"))
    quick = ExplainRequest(method="attention", details=False, steps=0)
    answers = list(clf.predict_files(paths))
    explained = list(clf.explain_files(paths, quick))
    with Image.open(paths[0]) as file:
        pixels = np.asarray(file.convert("RGB"))
    for picture in (str(paths[1]), paths[1].read_bytes(), pixels, Image.fromarray(pixels)):
        answers.append(clf.predict(picture))
        explained.append(clf.explain(picture, quick))
    for answer, each in zip(answers, explained, strict=True):
        assert isinstance(answer, Answer) and isinstance(each, Explanation)
        assert each.answer == answer.to_dict()
        assert tuple(each.top(4)) == answer.top
        assert (each.target, each.unsure) == (answer.label, answer.unsure)
    if precision == "bf16":  # what explaining computes by itself is not the answer
        (alone,) = explain(clf.model, clf.prepare(paths[1])[None], images, clf.classes, quick)
        assert tuple(alone.top(4)) != clf.predict(paths[1]).top


def test_files_are_explained_in_order_and_batches_change_nothing(
    folder: Path, clf: Classifier, tmp_path: Path
) -> None:
    paths = sorted((folder / "photos").rglob("*.jpg"))[:5]
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    paths.insert(2, broken)
    request = ExplainRequest(steps=2)
    results = list(clf.explain_files(paths, request, batch=2))
    assert isinstance(results[2], tuple)
    assert results[2][0] == broken
    for path, result in zip(paths, results, strict=True):
        if path != broken:
            assert isinstance(result, Explanation)
            assert (result.path, result.internals) == (str(path), None)
            alone = clf.explain(path, request)
            np.testing.assert_allclose(result.heatmap, alone.heatmap, atol=1e-5)
            assert alone.internals is not None


def test_create() -> None:
    model = vitral.create("mu/16", classes=7, size=(32, 48))
    assert model(torch.zeros(1, 3, 32, 48)).shape == (1, 7)
    same = vitral.create("mu/16", classes=7, size=(32, 48))
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True)
    )
    with pytest.raises(ModelError, match="did you mean"):
        vitral.create("B/1 6")
    with pytest.raises(SpecError, match="multiple"):
        vitral.create("B/16", size=100)


@pytest.mark.parametrize("mode", ["I;16", "RGBA", "CMYK", "P", "L"])
def test_a_pil_image_is_seen_like_its_file(clf: Classifier, tmp_path: Path, mode: str) -> None:
    ramp = np.linspace(0, 255, 32 * 32).reshape(32, 32)
    if mode == "I;16":
        image = Image.fromarray((ramp * 257).astype(np.uint16))
    else:
        image = Image.fromarray(ramp.astype(np.uint8)).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(ramp.T.astype(np.uint8)))
    path = tmp_path / "picture.tiff"
    image.save(path)
    with Image.open(path) as opened:
        assert clf.predict(opened).top == clf.predict(path).top
    assert clf.predict(image).top == clf.predict(path).top


def test_what_is_no_picture_is_said(clf: Classifier) -> None:
    for wrong in (None, 3, torch.zeros(3, 8, 8)):
        with pytest.raises(DataError, match="bytes, an array or a PIL image"):
            clf.predict(wrong)  # type: ignore[arg-type]


@pytest.fixture
def multi_label(folder: Path, tmp_path: Path) -> Classifier:
    return vitral.load(
        multi_label_artifact(folder / "photos", tmp_path / "multi_label"), precision="fp32"
    )


def test_multi_labels_are_the_classes_at_a_half(folder: Path, multi_label: Classifier) -> None:
    paths = sorted((folder / "photos").rglob("*.jpg"))
    seen = set()
    for path, answer in zip(paths, multi_label.predict_files(paths, batch=7), strict=True):
        assert isinstance(answer, Answer)
        logits = multi_label.logits(multi_label.prepare(path)[None])[0].tolist()
        order = sorted(range(4), key=lambda k: -logits[k])
        expected = {name: 1 / (1 + np.exp(-x)) for name, x in zip("abcd", logits, strict=True)}
        assert answer.labels == tuple("abcd"[k] for k in order if logits[k] >= 0)
        assert answer.label == answer.top[0][0] == "abcd"[order[0]]
        assert dict(answer.top) == pytest.approx(expected, rel=1e-5)
        assert answer.to_dict()["labels"] == list(answer.labels)
        one = multi_label.predict(path, top=1)
        assert len(one.top) == 1
        assert one.labels == answer.labels
        seen.add(len(answer.labels))
    assert len(seen) > 1  # how many labels an image gets is up to the image


def test_a_half_is_enough_and_less_is_not(folder: Path, multi_label: Classifier) -> None:
    head = multi_label.model.get_submodule("head")
    with torch.no_grad():
        head.get_parameter("weight").zero_()
        head.get_parameter("bias").copy_(torch.tensor([0.1, -0.1, 3.0, 0.0]))
    answer = multi_label.predict(next((folder / "photos").rglob("*.jpg")))
    assert answer.labels == ("c", "a", "d")
    assert [label for label, _ in answer.top] == ["c", "a", "d", "b"]


def test_an_exclusive_model_has_no_labels_of_its_own(folder: Path, clf: Classifier) -> None:
    answer = clf.predict(next((folder / "photos").rglob("*.jpg")))
    assert answer.labels is None
    assert "labels" not in answer.to_dict()


def test_multi_labels_are_scored_by_name(
    folder: Path, multi_label: Classifier, tmp_path: Path
) -> None:
    photos = folder / "photos"
    paths = sorted(photos.rglob("*.jpg"))
    named = {path: multi_label.predict(path).labels for path in paths}
    listed = tmp_path / "list.csv"
    lines = [f"{path},{'|'.join(labels or ())}" for path, labels in named.items()]
    listed.write_text("path,labels\n" + "\n".join(lines), encoding="utf-8")
    found = multi_label.evaluate(listed)
    assert isinstance(found, MultiLabelEvaluation)
    assert (found.accuracy, found.samples) == (1.0, len(paths))
    assert found.score == pytest.approx(1)
    rolled = [
        f"{path},{'|'.join('bcda'['abcd'.index(x)] for x in named[path] or ())}" for path in paths
    ]
    listed.write_text("path,labels\n" + "\n".join(rolled), encoding="utf-8")
    assert multi_label.evaluate(listed).accuracy < 0.5
    listed.write_text(f"path,labels\n{paths[0]},a|e\n", encoding="utf-8")
    with pytest.raises(DataError, match="none of the model's classes, but e; it knows"):
        multi_label.evaluate(listed)


def test_one_label_to_an_image_is_scored_by_a_multi_label_model_but_not_the_reverse(
    multi_label: Classifier, clf: Classifier, folder: Path, tmp_path: Path
) -> None:
    paths = sorted((folder / "photos").rglob("*.jpg"))
    listed = tmp_path / "list.csv"
    lines = [f"{path},{'abcd'[i % 3]}" for i, path in enumerate(paths)]
    listed.write_text("path,label\n" + "\n".join(lines), encoding="utf-8")
    found = multi_label.evaluate(listed)
    assert [s.support for s in found.per_class] == [14, 13, 13, 0]
    assert found.without_positives == ("d",)
    first, second = clf.classes
    listed.write_text(f"path,labels\n{paths[0]},{first}|{second}\n", encoding="utf-8")
    with pytest.raises(DataError, match="several labels each, and this model names one"):
        clf.evaluate(listed)


def test_an_explanation_says_the_same_probabilities(folder: Path, multi_label: Classifier) -> None:
    path = next((folder / "photos").rglob("*.jpg"))
    expected = pytest.approx(dict(multi_label.predict(path).top), rel=1e-4)
    assert dict(multi_label.explain(path).top(4)) == expected


def test_a_server_prepares_computes_and_answers_apart(folder: Path, clf: Classifier) -> None:
    paths = sorted((folder / "photos").rglob("*.jpg"))[:3]
    images = torch.stack([clf.prepare(path) for path in paths])
    assert images.dtype == torch.float32 and images.shape == (3, 3, 32, 32)
    answers = clf.answers(clf.engine.logits(images), [str(path) for path in paths], top=1)
    for path, answer in zip(paths, answers, strict=True):
        alone = clf.predict(path, top=1)
        assert (answer.path, answer.label) == (alone.path, alone.label)
        assert answer.score == pytest.approx(alone.score, abs=1e-6)
