"""ClassTree: ways up, levels, and what is no tree."""

import pytest

from vitral.errors import SpecError
from vitral.specs.tree import ClassTree

ANIMALS = {"robin": "bird", "wren": "bird", "bird": "animal", "tabby": "cat", "cat": "animal"}
CLASSES = ("oak", "robin", "tabby", "wren")


def test_the_way_up_ends_at_the_top():
    tree = ClassTree(parents=ANIMALS)
    assert tree.above("robin") == ("bird", "animal")
    assert tree.above("oak") == ()
    assert tree.groups(CLASSES) == ("animal", "bird", "cat")
    assert tree.groups(["oak"]) == ()
    assert tree.members("bird", CLASSES) == (1, 3)
    assert tree.members("animal", CLASSES) == (1, 2, 3)


def test_every_class_has_a_name_on_every_level():
    levels = ClassTree(parents=ANIMALS).levels(CLASSES)
    assert levels == (("oak", "animal", "animal", "animal"), ("oak", "bird", "cat", "bird"))
    assert ClassTree().levels(CLASSES) == ()
    assert ClassTree(parents={"x": "y"}).levels([]) == ()


def test_a_class_may_be_a_group_too():
    tree = ClassTree(parents=ANIMALS)
    classes = ("bird", "robin")
    assert tree.members("bird", classes) == (0, 1)
    assert tree.levels(classes) == (("animal", "animal"), ("bird", "bird"))


def test_what_belongs_to_other_classes_is_left_out():
    tree = ClassTree(parents=ANIMALS | {"spade": "tool"}, threshold=0.9).of(CLASSES)
    assert tree.parents == dict(sorted(ANIMALS.items()))
    assert tree.threshold == 0.9
    assert ClassTree.from_dict(tree.to_dict()) == tree


def test_classes_may_be_called_otherwise():
    tree = ClassTree(parents=ANIMALS, threshold=0.9).renamed({"robin": "Rotkehlchen", "x": "y"})
    assert tree.above("Rotkehlchen") == ("bird", "animal")
    assert "robin" not in tree.parents
    assert tree.threshold == 0.9


@pytest.mark.parametrize(
    ("parents", "circle"),
    [
        ({"a": "a"}, "a < a"),
        ({"a": "b", "b": "c", "c": "a"}, "a < b < c < a"),
        ({"x": "a", "a": "b", "b": "a"}, "a < b < a"),
    ],
)
def test_circles_are_named(parents, circle):
    with pytest.raises(SpecError, match=circle):
        ClassTree(parents=parents)


def test_a_tree_as_deep_as_there_are_names():
    parents = {str(i): str(i + 1) for i in range(5000)}
    assert len(ClassTree(parents=parents).above("0")) == 5000


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {"parents": {}},
        {"parents": {"a": 3}, "threshold": None},
        {"parents": {"a": ""}, "threshold": None},
        {"parents": [["a", "b"]], "threshold": None},
        {"parents": {}, "threshold": "high"},
        {"parents": {}, "threshold": 1.5},
        {"parents": {"a": "a"}, "threshold": None},
    ],
)
def test_what_is_no_tree(values):
    with pytest.raises(SpecError):
        ClassTree.from_dict(values)
