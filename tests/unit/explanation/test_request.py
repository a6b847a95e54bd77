"""A question that cannot be asked is one sentence with the valid values."""

import pytest
from networks import tiny, tiny_bit

from vitral.errors import ModelError, UsageError
from vitral.explanation import Question

NAMES = ("a", "b", "c", "d", "e")
TINY, BARE = tiny(), tiny(pool="mean", class_token=False)


@pytest.mark.parametrize(
    ("question", "method"),
    [
        (Question(), "occlusion"),
        (Question(query=(2, 3)), "attention"),
        (Question(layer=2), "attention"),
        (Question(head=4), "attention"),
        (Question(method="rollout", query="cls"), "rollout"),
    ],
)
def test_the_method_follows_from_what_is_named(question, method):
    assert question.settled(TINY, TINY.grid, NAMES).method == method


def test_without_a_head_it_is_rollout():
    assert Question().settled(tiny(classes=0), TINY.grid, ()).method == "rollout"
    for method in ("occlusion", "relevance"):
        with pytest.raises(ModelError, match="no head, so no class"):
            Question(method=method).settled(tiny(classes=0), TINY.grid, ())


def test_a_resnet_answers_but_has_no_attention():
    spec = tiny_bit(size=(64, 96))
    assert Question().settled(spec, spec.grid, NAMES).method == "occlusion"
    assert Question(method="relevance").settled(spec, spec.grid, NAMES).method == "relevance"
    for question in (Question(method="rollout"), Question(layer=1), Question(query=(1, 1))):
        with pytest.raises(ModelError, match="so it has no attention; method occlusion"):
            question.settled(spec, spec.grid, NAMES)


@pytest.mark.parametrize(
    ("question", "kind", "sentence"),
    [
        (Question(layer=3), UsageError, "Layers are 1 to 2; there is no 3"),
        (Question(layer=0), UsageError, "Layers are 1 to 2"),
        (Question(head=5), UsageError, "Heads are 1 to 4; there is no 5"),
        (Question(query=(3, 1)), UsageError, "rows are 1 to 2 and columns 1 to 3"),
        (Question(query=(0, 1)), UsageError, "no patch 0,1"),
        (Question(query="patch"), UsageError, "cls or a patch"),
        (Question(query="cls"), ModelError, "no class token to ask; a patch is ROW,COLUMN"),
        (Question(target="f"), UsageError, "no class 'f'; its classes are a, b, c, d, e"),
        (Question(method="cam"), UsageError, "one of occlusion, relevance, rollout, attention"),
        (Question(method="rollout", layer=1), UsageError, "rollout reads all layers"),
        (Question(method="relevance", query=(1, 1)), UsageError, "relevance is read from the ans"),
        (Question(method="occlusion", query=(1, 1)), UsageError, "occlusion is read from the ans"),
        (Question(method="occlusion", head=1), UsageError, "occlusion reads all layers"),
        (Question(steps=-1), UsageError, "steps is a number from 0"),
    ],
)
def test_what_does_not_exist_is_refused(question, kind, sentence):
    with pytest.raises(kind, match=sentence):
        question.settled(BARE, BARE.grid, NAMES)


def test_many_classes_are_not_all_listed():
    with pytest.raises(UsageError, match=r"n0, n1, .*n19 and 79 more\.") as error:
        Question(target="x").settled(tiny(classes=99), TINY.grid, [f"n{i}" for i in range(99)])
    assert "n20" not in str(error.value)
