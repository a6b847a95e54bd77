"""Embeddings against the network itself, and probes of folders, built-in sets and odd models."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import STEM, randomised, tiny, tiny_bit
from PIL import Image
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier

from drawn import draw_folder
from vitral.classifier import Classifier
from vitral.data.datasets import open_dataset
from vitral.engines.torch_engine import TorchEngine
from vitral.errors import DataError, ModelError, UsageError
from vitral.evaluation import probes
from vitral.features import _divided_as_trained, embed, probe
from vitral.images import preprocess
from vitral.specs import ImageSpec, ModelSpec
from vitral.weights.card import Card

SMALL = {"size": (32, 32), "patch": (16, 16)}
KINDS = {
    "class token": tiny(**SMALL),
    "mean": tiny(**SMALL, class_token=False, pool="mean"),
    "map": tiny(**SMALL, class_token=False, pool="map"),
    "pre-logits": tiny(**SMALL, representation=20),
    "distilled": tiny(**SMALL, distillation_token=True),
    "without a head": tiny(**SMALL, classes=0),
    "hybrid": tiny(size=(32, 32), patch=(1, 1), resnet=STEM),
    "BiT": replace(tiny_bit(), size=(32, 32)),
}


def classifier(spec: ModelSpec = KINDS["class token"], **made_by: object) -> Classifier:
    images = ImageSpec(size=spec.size)
    names = tuple(f"class {number}" for number in range(spec.classes))
    card = Card(model=spec, images=images, classes=names, made_by=made_by)
    model = randomised(spec).float()
    return Classifier(model, TorchEngine(model, torch.device("cpu"), "fp32"), card)


def expected(clf: Classifier, files: list[Path], spec: ImageSpec | None = None) -> np.ndarray:
    """One image at a time through the network."""
    spec = spec or clf.card.images
    with torch.no_grad():
        seen = [
            clf.model.representation(preprocess.tensor(file.read_bytes(), spec)[None])
            for file in files
        ]
    return torch.cat(seen).numpy()


def broken(path: Path) -> Path:
    """A PNG of which header and end are whole and the pixels are not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    data = bytearray(path.read_bytes())
    data[60:90] = bytes(30)
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("name", KINDS)
def test_each_row_is_what_the_head_reads(name: str, photos: Path) -> None:
    clf = classifier(KINDS[name])
    found = embed(clf, [photos], batch=5)
    files = sorted(photos.rglob("*.jpg"))
    assert found.paths == tuple(file.relative_to(photos).as_posix() for file in files)
    assert found.labels == tuple(file.parent.name for file in files)
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(found.vectors, expected(clf, files), atol=1e-4, rtol=1e-4)
    if clf.card.model.classes and name != "distilled":
        read = torch.from_numpy(found.vectors[:3])
        with torch.no_grad():
            logits = clf.model.head(read)
        images = [preprocess.tensor(file.read_bytes(), clf.card.images) for file in files[:3]]
        torch.testing.assert_close(logits, clf.logits(torch.stack(images)), atol=1e-3, rtol=1e-3)


def test_files_and_folders_without_labels(photos: Path, tmp_path: Path) -> None:
    clf, files = classifier(), sorted(photos.rglob("*.jpg"))
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in files[:4]:
        (flat / file.name).write_bytes(file.read_bytes())
    found = embed(clf, [flat])
    assert found.labels is None
    assert found.paths == tuple(str(path) for path in sorted(flat.iterdir()))
    order = [files[3], files[0], photos / "cross"]
    found = embed(clf, order)
    assert found.labels is None
    assert found.paths[:2] == (str(files[3]), str(files[0]))
    assert len(found.paths) == 2 + len(list((photos / "cross").iterdir()))
    np.testing.assert_allclose(found.vectors[:2], expected(clf, order[:2]), atol=1e-4)
    # images beside class folders belong to no class: then nobody has one
    (photos / "loose.jpg").write_bytes(files[0].read_bytes())
    found = embed(clf, [photos])
    assert found.labels is None and len(found.paths) == len(files) + 1


def test_unreadable_images_are_named_and_left_out(photos: Path, tmp_path: Path) -> None:
    clf = classifier()
    broken(photos / "cross" / "bad.png")
    (photos / "cross" / "page.jpg").write_bytes(b"<html>")
    ticks: list[tuple[int, int]] = []
    found = embed(clf, [photos], batch=10, tick=lambda done, total: ticks.append((done, total)))
    assert len(found.vectors) == len(found.paths) == len(found.labels or ()) == 36
    assert {problem.path for problem in found.failed} == {"cross/bad.png", "cross/page.jpg"}
    assert ticks[-1] == (37, 37)  # the page was seen to be none before
    with pytest.raises(DataError, match="None of the 1 files"):
        embed(clf, [broken(tmp_path / "alone" / "bad.png")])
    with pytest.raises(DataError, match="No images under"):
        (tmp_path / "empty").mkdir()
        embed(clf, [tmp_path / "empty"])
    with pytest.raises(DataError, match="does not exist"):
        embed(clf, [tmp_path / "nowhere"])


def test_splits_lists_and_built_in_sets(photos: Path, tmp_path: Path) -> None:
    clf = classifier()
    draw_folder(tmp_path / "both" / "train", kinds=3, each=1)
    draw_folder(tmp_path / "both" / "val", kinds=1, each=2)
    found = embed(clf, [tmp_path / "both"])
    assert [path.split("/")[0] for path in found.paths] == ["train"] * 3 + ["val"] * 2
    names = [path.relative_to(tmp_path).as_posix() for path in sorted(photos.rglob("*.jpg"))[:3]]
    table = tmp_path / "list.csv"
    table.write_text("path,labels\n" + "".join(f"{name},b|a\n" for name in names))
    found = embed(clf, [table])
    assert found.paths == tuple(names) and set(found.labels or ()) == {"a|b"}
    digits = embed(clf, ["digits"], batch=512)
    assert digits.paths == tuple(f"digits/{row}" for row in range(1797))
    opened = open_dataset("digits")
    assert [digits.labels[row] for row in opened.val.rows] == [str(k) for k in opened.val.labels]


def test_numbers_that_are_none_are_refused(photos: Path) -> None:
    clf = classifier()
    with torch.no_grad():
        clf.model.norm.weight[0] = torch.nan
    for call in (lambda: embed(clf, [photos]), lambda: probe(clf, photos, "knn")):
        with pytest.raises(ModelError, match="not finite"):
            call()


def by_hand(clf: Classifier, photos: Path, spec: ImageSpec) -> tuple:
    """Vectors and labels of the two sides that open_dataset makes."""
    opened = open_dataset(photos)
    sides = []
    for split in (opened.train, opened.val):
        files = [photos / split.key(i) for i in range(len(split))]
        sides += [expected(clf, files, spec), split.labels]
    return (opened, *sides)


def test_the_few_shot_probe_is_the_papers(photos: Path) -> None:
    """Its view of the images, its draws and its closed form, step by step."""
    clf = classifier(KINDS["pre-logits"])
    for file in photos.rglob("*.jpg"):
        with Image.open(file) as image:
            image.resize((64, 40)).save(file)
    result = probe(clf, photos, "fewshot", shots=(1, 5, 25), seeds=2, batch=7)
    # 32 pixels: resized to int(32 * 256 / 224) = 36 a side whatever the proportions, then cut
    view = replace(clf.card.images, fit="squash", crop=0.875)
    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    cut = np.asarray(wide.resize((36, 36), Image.Resampling.BICUBIC).crop((2, 2, 34, 34)))
    assert (preprocess.pixels(wide, view).permute(1, 2, 0).numpy() == cut).all()
    opened, support, labels, test, truth = by_hand(clf, photos, view)
    assert [score.shots for score in result.scores] == [1, 5]
    assert "25 shots are left out" in result.notes[0] and "10 readable" in result.notes[0]
    for score in result.scores:
        for seed, accuracy in enumerate(score.accuracies):
            random = np.random.default_rng(seed)
            rows = np.concatenate(
                [random.permutation(np.flatnonzero(labels == k))[: score.shots] for k in range(3)]
            )
            mean, deviation = support[rows].mean(0), support[rows].std(0) + 1e-5
            x, y = ((part - mean) / deviation for part in (support[rows], test))
            x, y = (np.hstack([part, np.full((len(part), 1), 100)]) for part in (x, y))
            head = Ridge(alpha=1024, fit_intercept=False).fit(x, 2.0 * np.eye(3)[labels[rows]] - 1)
            assert accuracy == pytest.approx((head.predict(y).argmax(1) == truth).mean())
    assert result.samples == len(truth) == len(opened.val) and result.classes == 3
    assert result.support <= 2 * 5 * 3  # no other image is looked at
    assert probe(clf, photos, "fewshot", shots=(1, 5, 25), seeds=2).scores == result.scores


def test_neighbours_and_regression_see_the_models_own_view(photos: Path) -> None:
    clf = classifier()
    _, support, labels, test, truth = by_hand(clf, photos, clf.card.images)
    knn = probe(clf, photos, "knn")
    theirs = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
    accuracy = theirs.fit(support, labels).score(test, truth)
    assert knn.scores[0].accuracies == (pytest.approx(accuracy),)
    assert knn.support == len(labels) and knn.kind == "knn"
    linear = probe(clf, photos, "linear")
    guess = probes.answers(test, probes.logistic(support, labels, 3))
    assert linear.scores[0].accuracy == pytest.approx((guess == truth).mean())


@pytest.mark.parametrize("name", ["hybrid", "BiT", "without a head"])
def test_probes_take_every_model(name: str, photos: Path) -> None:
    result = probe(classifier(KINDS[name]), photos, "fewshot", shots=(5,))
    assert 0 <= result.scores[0].accuracy <= 1 and len(result.scores[0].accuracies) == 3


def test_few_images_that_cannot_be_read_are_drawn_anew(tmp_path: Path) -> None:
    clf, data = classifier(), tmp_path / "data"
    draw_folder(data / "train", kinds=2, each=4)
    draw_folder(data / "val", kinds=2, each=5, first=900)
    clean = [probe(clf, data, "fewshot", shots=(count,)).scores for count in (1, 4)]
    kind = sorted(path.name for path in (data / "train").iterdir())[0]
    for number in range(6):
        broken(data / "train" / kind / f"bad{number}.png")
    broken(data / "val" / kind / "bad.png")
    result = probe(clf, data, "fewshot", shots=(4, 5))
    assert [score.shots for score in result.scores] == [4]
    assert result.support == 8 and result.samples == 10
    assert result.scores == clean[1]  # as if they had never been there
    assert probe(clf, data, "fewshot", shots=(1,)).scores == clean[0]
    assert "4 readable training images" in result.notes[0]
    assert sum("left out  " in note for note in result.notes) == 5
    assert result.notes[-1] == "... and 2 more images left out"
    assert probe(clf, data, "knn").support == 8
    for path in (data / "val").rglob("*.jpg"):
        broken(path.with_suffix(".png"))
        path.unlink()
    with pytest.raises(DataError, match="None of the 11 images under"):
        probe(clf, data, "knn")


def test_nothing_that_training_learnt_from_is_tested_on(photos: Path) -> None:
    had = {"split_seed": 5, "val_fraction": 0.4, "count": None}
    trained = classifier(recipe={"data": had})
    assert probe(trained, photos, "knn").samples == 15  # 0.4 of 12, three times
    val = _divided_as_trained(trained, photos).val
    again = open_dataset(photos, seed=5, val_fraction=0.4).val
    assert [val.key(i) for i in range(15)] == [again.key(i) for i in range(15)]
    other = open_dataset(photos, val_fraction=0.4).val
    assert {val.key(i) for i in range(15)} != {other.key(i) for i in range(15)}
    assert probe(classifier(), photos, "knn").samples == 6
    assert probe(classifier(recipe="another program's"), photos, "knn").samples == 6


def test_what_no_probe_can_use(photos: Path, tmp_path: Path) -> None:
    clf = classifier()
    names = [path.relative_to(tmp_path).as_posix() for path in sorted(photos.rglob("*.jpg"))]
    table = tmp_path / "list.csv"
    table.write_text(
        "path,labels\n" + "".join(f"{n},a|{'bc'[i % 2]}\n" for i, n in enumerate(names))
    )
    with pytest.raises(DataError, match="several labels each"):
        probe(clf, table, "fewshot")
    with pytest.raises(UsageError, match="fewshot, knn, linear, not 'svm'"):
        probe(clf, photos, "svm")
    with pytest.raises(UsageError, match="at least 1, not 0"):
        probe(clf, photos, "fewshot", seeds=0)
    with pytest.raises(DataError, match="class 'arrow' has 10 readable"):
        probe(clf, photos, "fewshot", shots=(50,))
