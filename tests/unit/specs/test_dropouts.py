import pytest

from vitral.errors import SpecError
from vitral.specs import Dropouts


def test_drop_path_grows_linearly_from_zero_or_stays():
    linear = Dropouts(drop_path=0.3)
    assert [linear.drop_path_of(i, 4) for i in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])
    constant = Dropouts(drop_path=0.3, drop_path_rule="constant")
    assert [constant.drop_path_of(i, 4) for i in range(4)] == [0.3] * 4
    assert linear.drop_path_of(0, 1) == 0


@pytest.mark.parametrize("name", ["drop_path", "dropout", "attention_dropout", "patch_dropout"])
@pytest.mark.parametrize("rate", [-0.1, 1, 1.5, "0.1"])
def test_a_rate_is_at_least_0_and_below_1(name, rate):
    with pytest.raises(SpecError, match=name):
        Dropouts(**{name: rate})


def test_the_rule_is_one_of_two():
    with pytest.raises(SpecError, match=r"linear \| constant"):
        Dropouts(drop_path_rule="cosine")
