import math
from typing import Any

import pytest

from vitral.errors import SpecError
from vitral.training.recipe import Schedule, epochs, steps
from vitral.training.schedule import check, multiplier

EPOCH = 20
KINDS: dict[str, dict[str, Any]] = {
    "cosine": {"end": 0.1},
    "linear": {"end": 0.01},
    "rsqrt": {"timescale": steps(30), "cooldown": steps(15)},
    "constant": {},
    "staircase": {},
}


def rates(settings: Schedule, total: int, epoch_steps: int = EPOCH) -> list[float]:
    return [multiplier(settings, step, total, epoch_steps) for step in range(total)]


def authors(kind: str, step: int, total: int, warmup: int, **more: float) -> float:
    """big_vision's create_learning_rate_schedule for base 1, without its warm-up factor."""
    progress = min(max((step - warmup) / float(total - warmup), 0.0), 1.0)
    rate = 1.0
    if kind == "linear":
        rate = more["end"] + (rate - more["end"]) * (1.0 - progress)
    elif kind == "cosine":
        rate = rate * 0.5 * (1.0 + math.cos(math.pi * progress))
    elif kind == "rsqrt":
        shift = more["timescale"] - warmup
        rate = rate / math.sqrt((step + shift) / more["timescale"]) if warmup < step else rate
        rate *= min(1.0, (total - step) / more["cooldown"])
    return rate


@pytest.mark.parametrize(
    ("kind", "more"),
    [("cosine", {}), ("linear", {"end": 1e-5}), ("rsqrt", {"timescale": 30, "cooldown": 15})],
)
@pytest.mark.parametrize("warmup", [1, 10, 40])
def test_whole_runs_are_those_of_big_vision(kind: Any, more: dict[str, Any], warmup: int) -> None:
    ours = {name: value if name == "end" else steps(value) for name, value in more.items()}
    settings = Schedule(kind=kind, warmup=steps(warmup), **ours)
    for step, rate in enumerate(rates(settings, 200)):
        # the authors' first step has rate 0; here the warm-up is one step ahead, the rest is not
        rise = min(1.0, (step + 1) / warmup)
        expected = rise * authors(kind, step, 200, warmup, **more)
        assert rate == pytest.approx(expected, rel=1e-12), step


@pytest.mark.parametrize(
    ("total", "warmup", "drops"),
    [(500, 100, (200, 300, 400)), (10_000, 500, (3000, 6000, 9000))],
)
def test_the_staircase_is_that_of_bit(total: int, warmup: int, drops: tuple[int, ...]) -> None:
    """BiT's get_lr, whose first step has rate 0, one step later."""
    shares = tuple(drop / total for drop in drops)
    settings = Schedule(kind="staircase", warmup=steps(warmup), drops=shares)
    for step, rate in enumerate(rates(settings, total)):
        later, expected = step + 1, 1.0
        for drop in drops:
            if drop < later:
                expected /= 10
        expected = later / warmup if later < warmup else expected
        assert rate == pytest.approx(expected, rel=1e-12), step


def test_the_default_drops_are_the_papers() -> None:
    found = rates(Schedule(kind="staircase", warmup=steps(0)), 1000)
    assert [step for step in range(1, 1000) if found[step] < found[step - 1]] == [300, 600, 900]


def test_deit_rises_from_1e_6_and_falls_to_1e_5() -> None:
    peak, total = 5e-4 * 1024 / 512, 300 * EPOCH
    settings = Schedule(warmup=epochs(5), start=1e-6 / peak, end=1e-5 / peak)
    found = [peak * rate for rate in rates(settings, total)]
    slope = (peak - 1e-6) / (5 * EPOCH)
    assert found[: 5 * EPOCH] == pytest.approx([1e-6 + slope * (i + 1) for i in range(5 * EPOCH)])
    middle = (5 * EPOCH + total) // 2
    assert found[middle] == pytest.approx((peak + 1e-5) / 2)
    assert found[-1] == pytest.approx(1e-5, rel=1e-3)
    assert min(found[5 * EPOCH :]) >= 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warmup", [steps(0), steps(1), steps(30), epochs(2)])
def test_every_kind_rises_to_the_peak_and_never_rises_again(kind: Any, warmup: Any) -> None:
    settings = Schedule(kind=kind, warmup=warmup, **KINDS[kind])
    found, last = rates(settings, 200), warmup.in_steps(EPOCH)
    assert all(0 < rate <= 1 for rate in found)
    assert found[:last] == sorted(set(found[:last]))
    assert found[max(last - 1, 0)] == 1.0 and found[last] == 1.0
    assert found[last:] == sorted(found[last:], reverse=True)
    if kind in ("cosine", "linear"):
        assert multiplier(settings, 200, 200, EPOCH) == pytest.approx(settings.end)


@pytest.mark.parametrize("kind", KINDS)
def test_the_warm_up_begins_where_it_says(kind: Any) -> None:
    settings = Schedule(kind=kind, warmup=steps(10), start=0.4, **KINDS[kind])
    assert rates(settings, 200)[:10] == pytest.approx([0.4 + 0.06 * (i + 1) for i in range(10)])


def test_a_run_of_warm_up_alone_and_the_shortest_run() -> None:
    assert rates(Schedule(warmup=steps(5)), 5) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates(Schedule(warmup=steps(0)), 1) == [1.0]


def test_lengths_in_epochs_are_steps() -> None:
    for name, kind in (("warmup", "cosine"), ("timescale", "rsqrt"), ("cooldown", "rsqrt")):
        by_epochs = Schedule(kind=kind, **{name: epochs(1.5)})  # type: ignore[arg-type]
        by_steps = Schedule(kind=kind, **{name: steps(30)})  # type: ignore[arg-type]
        assert rates(by_epochs, 200) == rates(by_steps, 200)


def test_a_schedule_longer_than_the_run_is_refused_with_what_to_set() -> None:
    check(Schedule(warmup=steps(40)), 40, EPOCH)
    with pytest.raises(SpecError, match=r"5 epochs is 100 steps of 40; .*schedule.warmup='4 steps"):
        check(Schedule(warmup=epochs(5)), 40, EPOCH)
    both = Schedule(kind="rsqrt", warmup=steps(30), cooldown=epochs(1))
    check(both, 50, EPOCH)
    with pytest.raises(SpecError, match="cooldown of 1 epochs are 50 steps of 49"):
        check(both, 49, EPOCH)
