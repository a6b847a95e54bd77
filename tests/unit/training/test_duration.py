import pytest

from vitral.errors import SpecError
from vitral.training.duration import Duration, epochs, steps


def test_durations() -> None:
    assert epochs(2.5).in_steps(10) == 25
    assert steps(7).in_steps(10) == 7
    assert Duration.parse("20 epochs") == epochs(20)
    assert Duration.parse(" 1e4steps") == steps(10_000)
    assert Duration.parse(str(epochs(0.5))) == epochs(0.5)
    for bad in ("20", "-1 epochs", "3 hours", "1.5 steps"):
        with pytest.raises(SpecError):
            Duration.parse(bad)


def test_longer_durations_are_never_fewer_steps() -> None:
    counted = [epochs(amount / 7).in_steps(23) for amount in range(50)]
    assert counted == sorted(counted)
