import json

import pytest

from vitral.evaluation.changes import compare_classes
from vitral.evaluation.score import Prediction


def answers(*triples: tuple[str, str, str]) -> list[Prediction]:
    return [
        Prediction(key=key, labels=(label,), predicted=(answer,), score=0.9)
        for key, label, answer in triples
    ]


def test_each_class_says_what_it_lost_and_won() -> None:
    now = answers(
        *((f"a{i}", "ant", "bee" if i < 12 else "ant") for i in range(20)),
        *((f"b{i}", "bee", "bee") for i in range(10)),
        *((f"d{i}", "dog", "dog" if i else "ant") for i in range(5)),
        ("late", "ant", "bee"),
    )
    before = {f"a{i}": ("ant",) for i in range(20)}
    before |= {f"b{i}": ("bee",) if i < 8 else ("cat",) for i in range(10)}
    before |= {f"d{i}": ("cat",) for i in range(5)}
    changes = compare_classes(now, before, ("ant", "bee", "dog"), ("cat", "bee", "ant"))
    ant, bee, dog = changes.classes
    assert (ant.images, ant.before, ant.after, ant.lost, ant.won) == (20, 20, 8, 12, 0)
    assert ant.p == pytest.approx(2 * 0.5**12)
    assert (ant.verdict, bee.verdict, dog.verdict) == ("lost", "not distinguishable", "new")
    assert (bee.lost, bee.won, bee.p) == (0, 2, 0.5)
    assert (dog.known, dog.p, changes.new_images, changes.new_right) == (False, None, 5, 4)
    assert changes.dropped == ("cat",)
    assert (changes.images, changes.before, changes.after) == (30, 28, 18)
    assert "clearly worse: ant" in changes.line()
    json.dumps(changes.to_dict(), allow_nan=False)


def test_without_a_picture_of_an_old_class_nothing_is_claimed() -> None:
    changes = compare_classes(
        answers(("d", "dog", "dog")), {"d": ("cat",)}, ("cat", "dog"), ("cat",)
    )
    assert changes.line().startswith("no held-out image is of a class that it knew")
    assert changes.classes[0].p is None and changes.classes[0].verdict == "not distinguishable"


def test_every_class_of_several_labels_counts() -> None:
    now = [Prediction(key="1", labels=("ant", "bee"), predicted=("bee",), score=0.2)]
    changes = compare_classes(now, {"1": ("ant",)}, ("ant", "bee"), ("ant", "bee"))
    assert [(c.lost, c.won) for c in changes.classes] == [(1, 0), (0, 1)]


def test_one_of_many_classes_that_is_worse_by_chance_is_not_called_worse() -> None:
    names = tuple(f"c{k}" for k in range(20))
    now = answers(*((f"{n}/{i}", n, "x" if n == "c0" else n) for n in names for i in range(6)))
    before = {f"{n}/{i}": (n,) for n in names for i in range(6)}
    changes = compare_classes(now, before, names, names)
    assert changes.classes[0].p == pytest.approx(2 * 0.5**6)  # 0.03, of twenty
    assert changes.classes[0].verdict == "not distinguishable"
