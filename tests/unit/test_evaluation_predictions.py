"""predictions.csv survives any name, and says which line is broken."""

import csv
from types import SimpleNamespace

import pytest

from vitral.errors import DataError, MachineError
from vitral.evaluation import Prediction, read_predictions, write_predictions

AWKWARD = ["골프공", 'say "cheese"', "a,b", "two\nlines", " edge ", "=1+1", "<script>", ""]


def evaluation(*predictions):
    return SimpleNamespace(predictions=predictions)


def test_any_name_survives(tmp_path):
    written = [
        Prediction(key=f"val/{name}/1.jpg", label=name, predicted=AWKWARD[-1 - i], score=0.25)
        for i, name in enumerate(AWKWARD)
    ]
    write_predictions(tmp_path / "predictions.csv", evaluation(*written))
    assert read_predictions(tmp_path / "predictions.csv") == written


def test_is_an_ordinary_csv(tmp_path):
    path = tmp_path / "predictions.csv"
    write_predictions(path, evaluation(Prediction(key="가.jpg", label="a", predicted="b", score=1)))
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"path": "가.jpg", "label": "a", "predicted": "b", "score": "1.000000"}
        ]


def test_a_path_that_is_not_text_is_escaped(tmp_path):
    path = tmp_path / "predictions.csv"
    key = b"bad\xff.jpg".decode("utf-8", "surrogateescape")
    write_predictions(path, evaluation(Prediction(key=key, label="a", predicted="b", score=1)))
    assert read_predictions(path)[0].key == "bad\\udcff.jpg"


def test_the_same_file_saved_by_a_spreadsheet(tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("\ufeffpath,label,predicted,score\r\n1.jpg,a,b,0.5\r\n", encoding="utf-8")
    assert read_predictions(path)[0].score == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not start with"),
        ("path,label\n", "does not start with"),
        ("path,label,predicted,score\n1,a,b,0.5\n2,a,b\n", "line 3"),
        ("path,label,predicted,score\n1,a,b,high\n", "line 2"),
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
    with pytest.raises(MachineError, match="--out"):
        write_predictions(tmp_path / "file" / "predictions.csv", evaluation())
