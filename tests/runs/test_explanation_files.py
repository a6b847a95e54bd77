"""What save() writes, and that the numbers are those of the explanation."""

import json

import numpy as np
import pytest
from explanations import explanation
from PIL import Image

from vitral.errors import UsageError
from vitral.explanation import save
from vitral.explanation.figures import details

TOLD = explanation(path="사진.jpg", query=(2, 3), method="attention")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return TOLD.save(tmp_path_factory.mktemp("files") / "run.v2" / "cat")


def test_one_picture_or_a_folder_of_everything(tmp_path, saved):
    told = explanation(internals=False)
    assert told.save(tmp_path / "one.png") == tmp_path / "one.png"
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    told.save(str(tmp_path / "one.SVG"))
    assert "<svg" in (tmp_path / "one.SVG").read_text(encoding="utf-8")
    assert {path.name for path in saved.iterdir()} == set(save.file_names())
    with pytest.raises(UsageError, match=r"\.png or \.svg"):
        told.save(tmp_path / "one.jpg")
    assert not (tmp_path / "one.jpg").exists()


def test_without_the_inside_or_a_head_there_is_less(tmp_path):
    assert {name for name, _ in save.contents(explanation(internals=False))} == {
        "explanation.png",
        "explanation.svg",
        "overlay.png",
        "input.png",
        "patches.png",
        "tokens.json",
    }
    headless = {name for name, _ in save.contents(explanation(classes=()))}
    assert not {"lens.png", "occlusion.png", "relevance.png"} & headless
    assert {"wall.png", "rollout.png", "tokens.svg"} <= headless


def test_files_of_an_earlier_explanation_go_and_others_stay(tmp_path):
    (tmp_path / "wall.png").write_bytes(b"mine")
    (tmp_path / "tokens.json").write_text('{"heat": "mine"}')
    explanation(internals=False).save(tmp_path)
    assert (tmp_path / "wall.png").read_bytes() == b"mine"  # nothing of ours was here before
    explanation().save(tmp_path)
    (tmp_path / "lens.png").unlink()
    (tmp_path / "lens.png").mkdir()
    (tmp_path / "notes.txt").touch()
    assert (tmp_path / "attention.npz").exists()
    explanation(internals=False).save(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    new = {name for name, _ in save.contents(explanation(internals=False))}
    assert left == new | {"notes.txt", "lens.png"}


def test_the_numbers_come_back(saved):
    told = TOLD
    values = json.loads((saved / "tokens.json").read_text(encoding="utf-8"))
    assert values["path"] == "사진.jpg"
    assert values["grid"] == {"rows": 4, "columns": 4}
    assert values["tokens"]["count"] == 17
    assert values["query"] == [2, 3]
    assert list(values["probabilities"])[:2] == ["cat", "골프공"]
    np.testing.assert_allclose(values["heat"]["values"], told.heatmap)
    assert values["faithfulness"]["deletion_score"] == pytest.approx(0.3)
    names = values["lens"]["classes"]
    assert set(names) == set(told.classes)
    order = [told.classes.index(name) for name in names]
    np.testing.assert_allclose(values["lens"]["values"], told.internals.layer_logits[:, order])
    means = told.internals.norms.mean(-1)
    for place, name in enumerate(("queries", "keys", "values")):
        np.testing.assert_allclose(values["lengths"][name], means[place], rtol=1e-6)
    with np.load(saved / "attention.npz") as arrays:
        assert set(arrays) == set(save.ARRAYS) == set(values["attention.npz"])
        for name, array in arrays.items():
            assert values["attention.npz"][name]["shape"] == list(array.shape)
            assert values["attention.npz"][name]["type"] == str(array.dtype)
        np.testing.assert_array_equal(arrays["rollout"], told.internals.rollout)
        np.testing.assert_allclose(arrays["attention"].astype(float).sum(-1), 1, atol=0.01)
        for name in ("occlusion", "relevance"):
            np.testing.assert_array_equal(arrays[name], getattr(told.internals, name))
            lit = details.overlay_png(told, getattr(told.internals, name))
            assert (saved / f"{name}.png").read_bytes() == lit
    with Image.open(saved / "input.png") as image:
        np.testing.assert_array_equal(np.asarray(image), told.picture)


def test_a_lens_of_many_classes_is_cut_in_the_text_alone():
    told = explanation(classes=[f"n{i}" for i in range(99)])
    values = save.tokens_json(told)
    assert len(values["lens"]["classes"]) == save.MAX_CLASSES
    best = told.internals.layer_logits[-1].argmax()
    assert values["lens"]["classes"][0] == f"n{best}"
    assert values["attention.npz"]["lens"]["shape"] == [3, 99]
