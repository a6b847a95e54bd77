"""A request that cannot be met is one sentence with the valid values."""

import pytest
from networks import tiny, tiny_bit

from vitral.errors import ModelError, UsageError
from vitral.explanation import ExplainRequest

NAMES = ("a", "b", "c", "d", "e")
TINY, BARE = tiny(), tiny(pool="mean", class_token=False)


@pytest.mark.parametrize(
    ("asked", "method"),
    [
        (ExplainRequest(), "occlusion"),
        (ExplainRequest(query=(2, 3)), "attention"),
        (ExplainRequest(layer=2), "attention"),
        (ExplainRequest(head=4), "attention"),
        (ExplainRequest(method="rollout", query="cls"), "rollout"),
    ],
)
def test_the_method_follows_from_what_is_named(asked, method):
    assert asked.resolve(TINY, TINY.grid, NAMES).method == method


def test_without_a_head_it_is_rollout():
    assert ExplainRequest().resolve(tiny(classes=0), TINY.grid, ()).method == "rollout"
    for method in ("occlusion", "relevance"):
        with pytest.raises(ModelError, match="no head, so no class"):
            ExplainRequest(method=method).resolve(tiny(classes=0), TINY.grid, ())


def test_a_resnet_answers_but_has_no_attention():
    spec = tiny_bit(size=(64, 96))
    assert ExplainRequest().resolve(spec, spec.grid, NAMES).method == "occlusion"
    assert ExplainRequest(method="relevance").resolve(spec, spec.grid, NAMES).method == "relevance"
    for request in (
        ExplainRequest(method="rollout"),
        ExplainRequest(layer=1),
        ExplainRequest(query=(1, 1)),
    ):
        with pytest.raises(ModelError, match="so it has no attention; method occlusion"):
            request.resolve(spec, spec.grid, NAMES)


@pytest.mark.parametrize(
    ("asked", "kind", "sentence"),
    [
        (ExplainRequest(layer=3), UsageError, "Layers are 1 to 2; there is no 3"),
        (ExplainRequest(layer=0), UsageError, "Layers are 1 to 2"),
        (ExplainRequest(head=5), UsageError, "Heads are 1 to 4; there is no 5"),
        (ExplainRequest(query=(3, 1)), UsageError, "rows are 1 to 2 and columns 1 to 3"),
        (ExplainRequest(query=(0, 1)), UsageError, "no patch 0,1"),
        (ExplainRequest(query="patch"), UsageError, "cls or a patch"),
        (ExplainRequest(query="cls"), ModelError, "no class token to ask; a patch is ROW,COLUMN"),
        (ExplainRequest(target="f"), UsageError, "no class 'f'; its classes are a, b, c, d, e"),
        (
            ExplainRequest(method="cam"),
            UsageError,
            "one of occlusion, gradient, relevance, rollout, attention",
        ),
        (ExplainRequest(method="rollout", layer=1), UsageError, "rollout reads all layers"),
        (
            ExplainRequest(method="relevance", query=(1, 1)),
            UsageError,
            "relevance is read from the ans",
        ),
        (
            ExplainRequest(method="occlusion", query=(1, 1)),
            UsageError,
            "occlusion is read from the ans",
        ),
        (ExplainRequest(method="occlusion", head=1), UsageError, "occlusion reads all layers"),
        (ExplainRequest(steps=-1), UsageError, "steps is a number from 0"),
    ],
)
def test_what_does_not_exist_is_refused(asked, kind, sentence):
    with pytest.raises(kind, match=sentence):
        asked.resolve(BARE, BARE.grid, NAMES)


def test_many_classes_are_not_all_listed():
    with pytest.raises(UsageError, match=r"n0, n1, .*n19 and 79 more\.") as error:
        ExplainRequest(target="x").resolve(
            tiny(classes=99), TINY.grid, [f"n{i}" for i in range(99)]
        )
    assert "n20" not in str(error.value)
