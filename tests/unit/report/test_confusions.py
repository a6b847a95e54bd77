"""The matrix of the page, its cells, and the images behind them."""

import numpy as np
import pytest

from vitral.evaluation import Prediction
from vitral.report import confusions, style


def random_matrix(count, seed=0):
    random = np.random.default_rng(seed)
    matrix = random.poisson(0.05, (count, count))
    np.fill_diagonal(matrix, 50)
    return matrix


def test_a_small_matrix_is_shown_whole_and_of_a_large_one_the_most_confused():
    assert confusions.most_confused(random_matrix(30)) == list(range(30))
    matrix = random_matrix(200)
    matrix[150, 7], matrix[7, 150], matrix[199, 0] = 40, 30, 20
    shown = confusions.most_confused(matrix)
    assert shown == sorted(set(shown))
    assert {0, 7, 150, 199} <= set(shown)
    assert 15 < len(shown) <= 20
    assert confusions.most_confused(np.diag([3] * 40)) == []


def test_cells_tell_the_share_of_their_whole_row_and_where_they_are():
    matrix = random_matrix(40)
    matrix[3, 5] = 25
    row, *_ = confusions.cells(matrix, [3, 5])
    assert row[1]["count"] == 25
    assert row[1]["place"] == "3,5"
    assert row[1]["share"] == pytest.approx(25 / matrix[3].sum())
    assert row[1]["background"] == style.shade((25 / matrix[3].sum()) ** 0.5)[0]
    empty = confusions.cells(np.diag([1, 0]), [0, 1])[1]
    assert [cell["background"] for cell in empty] == ["", ""]


def test_pairs_are_the_largest_off_the_diagonal():
    matrix = random_matrix(50)
    names = [f"k{i}" for i in range(50)]
    found = confusions.pairs(names, matrix, 10)
    wrong = matrix * (1 - np.eye(50, dtype=int))
    assert [pair["count"] for pair in found] == sorted(wrong.ravel())[::-1][:10]
    for pair in found:
        truth, said = names.index(pair["truth"]), names.index(pair["predicted"])
        assert matrix[truth, said] == pair["count"]
        assert pair["place"] == f"{truth},{said}"


def answers(count, label, predicted):
    return [
        Prediction(
            key=f"{label}{predicted}{i}", labels=(label,), predicted=(predicted,), score=i / count
        )
        for i in range(count)
    ]


def test_images_of_a_cell_the_surest_first_at_most_200():
    rows = answers(250, "a", "b") + answers(3, "b", "b") + answers(2, "b", "a")
    found = confusions.images(rows, ["a", "b"], ["0,1", "1,1", "0,0"])
    assert set(found) == {"0,1", "1,1"}
    assert found["0,1"]["count"] == 250
    assert found["0,1"]["images"][0] == ["ab249", 100]
    assert len(found["0,1"]["images"]) == 200
    assert found["1,1"]["images"] == [["bb2", 67], ["bb1", 33], ["bb0", 0]]
    assert (found["1,1"]["truth"], found["1,1"]["predicted"]) == ("b", "b")


def test_a_page_names_no_more_than_it_can_bear_and_the_confusions_come_first():
    names = [f"k{i}" for i in range(150)]
    rows = [row for name in names for row in answers(200, name, name)]
    rows += answers(200, "k0", "k1")
    places = [f"{i},{i}" for i in range(150)] + ["0,1"]
    found = confusions.images(rows, names, places)
    assert sum(len(cell["images"]) for cell in found.values()) == 20_000
    assert len(found["0,1"]["images"]) == 200
    assert found["149,149"]["count"] == 200
