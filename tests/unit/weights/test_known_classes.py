import re
from dataclasses import replace

import pytest
from networks import randomised, tiny

from vitral.catalog.checkpoints import labels
from vitral.errors import UsageError
from vitral.specs import ImageSpec
from vitral.weights.card import Card
from vitral.weights.known_classes import KnownClasses, distinct, renamed
from vitral.weights.read import Weights


def weights(*names: str, format: str = "vitral", **made_by: object) -> Weights:
    spec = replace(tiny(), classes=len(names))
    card = Card(model=spec, images=ImageSpec(size=spec.size), classes=names, made_by=made_by)
    return Weights(tensors=randomised(spec).state_dict(), card=card, format=format)


def test_classes_are_matched_by_name_in_any_order() -> None:
    known = KnownClasses.of(weights("ant", "bee", "cat"), ("cat", "dog", "ant"))
    assert known.places == (2, -1, 0)
    assert (known.kept, known.new, known.dropped) == (("cat", "ant"), ("dog",), ("bee",))
    assert known.line() == (
        "The head's rows of 2 classes are kept by name; 1 class (dog) begins at the class mean; "
        "dropped: 1 class (bee)."
    )
    assert "probe" in known.line(solved=True)


def test_imagenets_classes_are_known_by_wordnet_id() -> None:
    known = KnownClasses.of(weights(*labels("imagenet-1k")), ("n02102040", "owl", "n01440764"))
    assert known.places == (217, -1, 0)
    assert (known.kept, known.new) == (("n02102040", "n01440764"), ("owl",))
    assert len(known.dropped) == 998
    both = KnownClasses.of(weights(*labels("imagenet-1k")), ("n01440764", "tench"))
    assert both.places == (-1, 0)


def test_a_name_that_stands_twice_says_nothing() -> None:
    assert KnownClasses.of(weights("crane", "crane", "owl"), ("crane", "owl")).places == (-1, 2)
    assert distinct(("crane", "owl", "crane")) == ("crane (0)", "owl", "crane (2)")


def test_numbers_that_a_converter_gave_are_no_names() -> None:
    numbers = ("0", "1", "2")
    assert KnownClasses.of(weights(*numbers, format="timm"), ("0", "1")).kept == ()
    assert KnownClasses.of(weights(*numbers, converted={}), ("0", "1")).kept == ()
    assert KnownClasses.of(weights(*numbers), ("0", "1")).kept == ("0", "1")
    assert KnownClasses.of(weights(*numbers, format="timm"), ("2", "0", "1")).places == (2, 0, 1)
    kept = KnownClasses.of(weights(*numbers, format="timm"), (*numbers, "cat"))
    assert kept.places == (0, 1, 2, -1), "--keep has all of them"


def test_classes_are_renamed_all_at_once() -> None:
    old = weights("ant", "bee", "cat")
    assert renamed(old, []).card.classes == ("ant", "bee", "cat")
    assert renamed(old, [("bee", "wasp")]).card.classes == ("ant", "wasp", "cat")
    swapped = renamed(old, [("ant", "bee"), ("bee", "ant")])
    assert swapped.card.classes == ("bee", "ant", "cat")
    turned = renamed(old, [("ant", "bee"), ("bee", "cat"), ("cat", "ant")])
    assert turned.card.classes == ("bee", "cat", "ant")
    assert renamed(weights("a", "a"), [("a (1)", "b")]).card.classes == ("a (0)", "b")


@pytest.mark.parametrize(
    ("renames", "message"),
    [
        ([("bea", "wasp")], "no class 'bea'; did you mean 'bee'?"),
        ([("zebra", "wasp")], "no class 'zebra'; theirs are ant, bee, cat."),
        ([("ant", "x"), ("ant", "y")], "gives 'ant' two names, 'x' and 'y'"),
        ([("ant", "bee")], "would call 2 classes 'bee' (ant, bee)"),
        ([("ant", "x"), ("bee", "x")], "would call 2 classes 'x' (ant, bee)"),
    ],
)
def test_names_that_cannot_be_are_answered(renames: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        renamed(weights("ant", "bee", "cat"), renames)
