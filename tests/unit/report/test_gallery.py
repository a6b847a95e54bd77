"""The gallery: the surest mistakes first, small pictures, unreadable ones left out."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from vitral.evaluation import evaluate_multi_label, evaluate_single_label
from vitral.model import build
from vitral.report import examples
from vitral.specs import ImageSpec, ModelSpec


class Split:
    """Six pictures of 300 × 200 pixels, number 4 damaged, number 5 an array of 8 × 8."""

    def __len__(self):
        return 6

    def key(self, index):
        return f"val/{index}.png"

    def read(self, index):
        if index == 4:
            return b"not a picture"
        if index == 5:
            return np.full((8, 8, 3), 200, np.uint8)
        buffer = io.BytesIO()
        Image.new("RGB", (300, 200), (40 * index, 0, 0)).save(buffer, "PNG")
        return buffer.getvalue()


@pytest.fixture
def evaluation():
    logits = np.zeros((6, 2))
    logits[:, 1] = [1, -1, 3, 2, 9, 5]  # the truth is class 0: all but number 1 are wrong
    order = [3, 1, 0, 2, 5, 4]  # an evaluation need not be in the order of the split
    keys = [Split().key(i) for i in order]
    return evaluate_single_label(logits[order], [0] * 6, ["cat", "dog"], keys)


def kind(found, name):
    return [example for example in found if example.kind == name]


def test_surest_first_and_unreadable_left_out(evaluation):
    found = kind(examples(Split(), evaluation.predictions), "mistake")
    assert [round(example.score, 3) for example in found] == [0.993, 0.953, 0.881, 0.731]
    assert [example.key for example in found] == [f"val/{i}.png" for i in (5, 2, 3, 0)]
    assert all((e.truth, e.predicted, e.overlay) == ("cat", "dog", None) for e in found)
    assert all(example.label_probability == pytest.approx(1 - example.score) for example in found)
    pictures = [Image.open(io.BytesIO(example.image)) for example in found]
    assert [(p.format, p.size) for p in pictures[:2]] == [("PNG", (240, 240)), ("JPEG", (240, 160))]
    assert pictures[1].convert("RGB").getpixel((100, 100))[0] == pytest.approx(80, abs=3)


def test_small_ones_for_the_confusions_and_the_right_answers(evaluation):
    found = kind(examples(Split(), evaluation.predictions), "confusion")
    assert {example.key for example in found} == {f"val/{i}.png" for i in (0, 1, 2, 3, 5)}
    assert {e.key for e in found if e.truth == e.predicted} == {"val/1.png"}
    sizes = {Image.open(io.BytesIO(example.image)).size for example in found}
    assert sizes == {(96, 64), (96, 96)}


def test_of_many_confusions_each_has_its_picture_and_no_page_too_many():
    random = np.random.default_rng(0)
    labels, logits = np.arange(1200) % 40, random.normal(0, 1, (1200, 40))
    logits[np.arange(1200), labels] += 1
    logits[labels == 3, 5] += 9  # 30 images of 3 are taken for 5
    keys = [f"{i}" for i in range(1200)]

    class Grey:
        def __len__(self):
            return 1200

        def key(self, index):
            return keys[index]

        def read(self, index):
            return np.full((32, 32, 3), index % 256, np.uint8)

    predictions = evaluate_single_label(
        logits, labels, [f"k{i}" for i in range(40)], keys
    ).predictions
    found = kind(examples(Grey(), predictions), "confusion")
    assert len(found) == 150 == len({example.key for example in found})
    pairs = [(e.truth, e.predicted) for e in found]
    assert pairs.count(("k3", "k5")) >= 4
    wrong = [pair for pair in pairs if pair[0] != pair[1]]
    assert len(set(wrong)) >= 30
    assert ("k5", "k5") in pairs


def test_likely_label_errors_have_their_own_place():
    logits = np.array([[4.0, 0], [4, 0], [0, 4], [0, 4], [0, 5], [0.3, 0]])
    keys = [Split().key(i) for i in (0, 1, 2, 3, 5, 4)]
    found = examples(
        Split(), evaluate_single_label(logits, [0, 0, 1, 1, 0, 1], ["a", "b"], keys).predictions
    )
    assert [e.key for e in kind(found, "mistake")] == ["val/5.png"]
    assert [(e.key, e.truth, e.predicted) for e in kind(found, "label_error")] == [
        ("val/5.png", "a", "b")
    ]


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return build(
        ModelSpec(
            name="tiny", size=32, patch=8, width=24, depth=1, heads=3, mlp_width=48, classes=2
        )
    )


def test_with_a_transformer_each_has_its_overlay(evaluation, tiny):
    images = ImageSpec(size=(32, 32))
    found = examples(Split(), evaluation.predictions, tiny, images)
    for example in kind(found, "mistake") + kind(found, "label_error"):
        assert example.overlay
        assert Image.open(io.BytesIO(example.overlay)).size == (240, 240)
    assert not any(example.overlay for example in kind(found, "confusion"))


def test_overlays_are_those_of_each_image_alone(tiny):
    """Ten mistakes are explained in batches; none gets another's picture."""

    class Colours(Split):
        def __len__(self):
            return 10

        def read(self, index):
            return np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)

    images, split = ImageSpec(size=(32, 32)), Colours()
    keys = [split.key(i) for i in range(10)]
    predictions = evaluate_single_label(
        np.stack([np.zeros(10), np.arange(1, 11)], 1), [0] * 10, "ab", keys
    ).predictions
    together = kind(examples(split, predictions, tiny, images), "mistake")
    assert [example.key for example in together] == keys[::-1]
    for example in together:
        alone = [p for p in predictions if p.key == example.key]
        (single,) = kind(examples(split, alone, tiny, images), "mistake")
        both = [
            np.asarray(Image.open(io.BytesIO(e.overlay)).convert("RGB"), float)
            for e in (example, single)
        ]
        assert np.abs(both[0] - both[1]).mean() < 2


def test_no_mistake_no_gallery():
    right = evaluate_single_label([[2.0, 0.0]], [0], ["cat", "dog"], ["val/0.png"])
    assert [e.kind for e in examples(Split(), right.predictions)] == ["confusion"]
    gone = evaluate_single_label([[2.0, 0.0]], [1], ["cat", "dog"], ["elsewhere.png"])
    assert examples(Split(), gone.predictions) == []


def test_multi_labels_name_all_they_have_and_were_given():
    labels = np.array([[1, 1], [0, 0], [0, 1], [1, 0]], bool)
    logits = np.array([[2.0, -1.0], [-1.0, 3.0], [-1.0, 2.0], [-2.0, -1.0]])
    keys = [Split().key(i) for i in range(4)]
    answers = evaluate_multi_label(logits, labels, ["cat", "dog"], keys).predictions
    found = examples(Split(), answers, kind="multi_label")
    said = [(e.truth, e.predicted, round(e.score, 3)) for e in found]
    assert said == [("", "dog", 0.953), ("cat", "", 0.881), ("cat, dog", "cat", 0.731)]
