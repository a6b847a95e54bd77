import pytest

from vitral.weights.patterns import filled, numbers_in, rewritten

CASES = [
    ("blocks.{i}.norm", {"i": 11}, "blocks.11.norm"),
    ("block{s+1}/unit{u+1}/conv{n}", {"s": 0, "u": 8, "n": 3}, "block1/unit9/conv3"),
    ("block{s+1}/unit{u+1:02}/a", {"s": 3, "u": 0}, "block4/unit01/a"),
    ("block{s+1}/unit{u+1:02}/a", {"s": 3, "u": 35}, "block4/unit36/a"),
    ("a.b", {}, "a.b"),
]


@pytest.mark.parametrize(("template", "values", "name"), CASES)
def test_numbers_are_read_as_they_are_written(template, values, name):
    assert filled(template, values) == name
    assert numbers_in(template, name) == values


OTHERS = ["block.1", "blocks.1.x", "xblocks.1", "blocks.", "blocks.-1", "blocks.1\n"]


@pytest.mark.parametrize("name", [*OTHERS, "blocks." + "9" * 5000], ids=lambda name: repr(name[:9]))
def test_other_names_are_none(name):
    assert numbers_in("blocks.{i}", name) is None


def test_dots_are_dots():
    assert numbers_in("a.{i}", "ax1") is None


def test_rewritten():
    pairs = {"h.{i}.": "encoder.{i}.", "b{s+1}/": "block{s}/", "probe": "head/probe"}
    assert rewritten("h.3.norm.weight", pairs) == "encoder.3.norm.weight"
    assert rewritten("b2/x", pairs) == "block1/x"
    assert rewritten("probe", pairs) == "head/probe"
    # a whole name is no beginning, and a beginning stands at the beginning
    for other in ("probe.weight", "x.h.3.norm", "h.x.norm", "head/probe"):
        assert rewritten(other, pairs) == other
    back = {new: old for old, new in pairs.items()}
    for name in ("h.3.norm.weight", "b2/x", "probe"):
        assert rewritten(rewritten(name, pairs), back) == name
