import pytest

from vitral.data.datasets import open_dataset
from vitral.data.scored import Labelled, in_common
from vitral.errors import DataError


def test_two_models_meet_on_the_images_that_neither_learnt_from() -> None:
    split = open_dataset("digits").val
    one = Labelled(split=split.select([3, 1, 2, 0]), own=True)
    two = Labelled(split=split.select([5, 0, 1, 4, 3]), unknown={"x": 2})
    a, b = in_common(one, two)
    keys = [split.key(i) for i in (3, 1, 0)]
    assert [a.split.key(i) for i in range(3)] == [b.split.key(i) for i in range(3)] == keys
    assert a.split.labels.tolist() == b.split.labels.tolist() == split.labels[[3, 1, 0]].tolist()
    assert (a.own, b.own, b.unknown) == (True, False, {"x": 2})
    with pytest.raises(DataError, match="No image is left"):
        in_common(one, Labelled(split=split.select([6])))
