"""predictions.csv survives any name, and says which line is broken."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from vitral.errors import DataError, MachineError
from vitral.evaluation import (
    Prediction,
    evaluate_multi_label,
    evaluate_single_label,
    read_predictions,
    write_evaluation,
    write_predictions,
)
from vitral.evaluation.multi_label import joined
from vitral.evaluation.single_label import csv_rows

AWKWARD = ["골프공", 'say "cheese"', "a,b", "two\nlines", " edge ", "=1+1", "<script>", ""]


def evaluation(*predictions):
    return SimpleNamespace(csv_rows=lambda: csv_rows(predictions))


def test_any_name_survives(tmp_path):
    written = [
        Prediction(
            key=f"val/{name}/1.jpg",
            labels=(name,),
            predicted=(AWKWARD[-1 - i],),
            score=0.25,
            label_probability=None if i == 3 else 1.5e-9 * i,
        )
        for i, name in enumerate(AWKWARD)
    ]
    write_predictions(tmp_path / "predictions.csv", evaluation(*written))
    assert read_predictions(tmp_path / "predictions.csv").predictions == tuple(written)


def test_is_an_ordinary_csv(tmp_path):
    path = tmp_path / "predictions.csv"
    answer = Prediction(
        key="가.jpg", labels=("a",), predicted=("b",), score=1, label_probability=2e-9
    )
    write_predictions(path, evaluation(answer))
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {
                "path": "가.jpg",
                "label": "a",
                "predicted": "b",
                "score": "1.000000",
                "given": "2e-09",
            }
        ]


def test_a_path_that_is_not_text_is_escaped(tmp_path):
    path = tmp_path / "predictions.csv"
    key = b"bad\xff.jpg".decode("utf-8", "surrogateescape")
    write_predictions(
        path, evaluation(Prediction(key=key, labels=("a",), predicted=("b",), score=1))
    )
    assert read_predictions(path).predictions[0].key == "bad\\udcff.jpg"


def test_a_file_of_four_columns_and_one_saved_by_a_spreadsheet(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("\ufeffpath,label,predicted,score\r\n1.jpg,a,b,0.5\r\n", encoding="utf-8")
    (found,) = read_predictions(path).predictions
    assert (found.score, found.label_probability) == (0.5, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not start with"),
        ("path,label\n", "does not start with"),
        ("path,label,predicted,score\n1,a,b,0.5\n2,a,b\n", "line 3"),
        ("path,label,predicted,score\n1,a,b,high\n", "line 2"),
        ("path,label,predicted,score\n1,a,b,0.5,0.1\n", "line 2"),
        ("path,label,predicted,score,given\n1,a,b,0.5\n", "line 2"),
        ("path,label,predicted,score,given\n1,a,b,0.5,low\n", "line 2"),
    ],
)
def test_a_broken_file_says_where(tmp_path, text, message):
    path = tmp_path / "predictions.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_predictions(path)


def test_files_that_cannot_be(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(tmp_path / "none.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="Choose a writable place"):
        write_predictions(tmp_path / "file" / "predictions.csv", evaluation())


def test_evaluation_json_is_all_but_the_confusions(tmp_path):
    names = ["가", "나\udcff"]
    found = evaluate_single_label([[2.0, 0.0], [1.0, 0.0]], [0, 1], names, ["1.jpg", "2.jpg"])
    write_evaluation(tmp_path / "evaluation.json", found)
    text = (tmp_path / "evaluation.json").read_text(encoding="utf-8")
    values = found.to_dict()
    del values["confusion"]
    assert json.loads(text) == json.loads(json.dumps(values))
    assert "가" in text
    both = multi_label(["a", "b"])
    write_evaluation(tmp_path / "evaluation.json", both)
    assert json.loads((tmp_path / "evaluation.json").read_text()) == json.loads(
        json.dumps(both.to_dict())
    )


def multi_label(classes, samples=40):
    random = np.random.default_rng(0)
    labels = random.random((samples, len(classes))) < 0.3
    labels[0] = False  # an image may have none
    logits = random.normal(0, 4, labels.shape)
    keys = [f"{i}.jpg" for i in range(samples)]
    return evaluate_multi_label(logits, labels, classes, keys)


def test_multi_labels_survive_whatever_their_names(tmp_path):
    written = multi_label([*AWKWARD, "a|b", '"', ";"])
    write_predictions(tmp_path / "predictions.csv", written)
    found = read_predictions(tmp_path / "predictions.csv").multi_label
    assert found.classes == written.classes
    for one, other in zip(found.predictions, written.predictions, strict=True):
        assert (one.key, one.labels, one.predicted) == (other.key, other.labels, other.predicted)
    np.testing.assert_allclose(found.probabilities, written.probabilities, rtol=1e-5)
    assert found.score == pytest.approx(written.score, abs=1e-4)
    assert found.interval == pytest.approx(written.interval, abs=1e-4)


def test_multi_labels_are_an_ordinary_csv_and_a_list_of_labels(tmp_path):
    path = tmp_path / "predictions.csv"
    labels = np.array([[1, 0, 1], [0, 0, 0]], bool)
    logits = [[9, -20, 0], [-1, -1, -1]]
    write_predictions(
        path, evaluate_multi_label(logits, labels, ["b", "a", "가"], ["1.jpg", "2.jpg"])
    )
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "path": "1.jpg",
        "labels": "b|가",
        "predicted": "b|가",
        "score of b": "0.999877",
        "score of a": "2.06115e-09",
        "score of 가": "0.5",
    }
    assert (rows[1]["labels"], rows[1]["predicted"]) == ("", "")
    assert joined(["cat", "in|doors"]) == 'cat|"in|doors"'


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1.jpg,a,,0.5", "line 2"),
        ("1.jpg,a,,0.5,high", "line 2"),
        ("1.jpg,c,,0.5,0.5", "line 2"),
        ("1.jpg,,,0.5,0.5", "None of the 1 samples"),
        ("1.jpg,a,,7,0.5", "between 0 and 1"),
    ],
)
def test_a_broken_multi_label_file_says_where(tmp_path, row, message):
    path = tmp_path / "predictions.csv"
    path.write_text(f"path,labels,predicted,score of a,score of b\n{row}\n", encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_predictions(path)
