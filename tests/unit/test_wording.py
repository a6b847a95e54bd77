"""Pieces of sentences that every room uses."""

import pytest

from vitral.wording import (
    byte_size,
    clock,
    closest,
    did_you_mean,
    first_lines,
    listed,
    visible,
)


def test_no_name_commands_a_terminal() -> None:
    assert visible("\x1b[31m두\n줄\t\x9b é [red]") == r"\x1b[31m두\n줄\t\x9b é [red]"
    assert visible("a\nb\rc", but="\n") == "a\nb\\rc"


def test_listed() -> None:
    assert listed([]) == ""
    assert listed(["a", "b"], most=2) == "a, b"
    assert listed(range(3), most=2) == "0, 1 and 1 more"
    assert listed((str(i) for i in range(3000)), most=1) == "0 and 2,999 more"


def test_first_lines() -> None:
    assert first_lines([]) == []
    assert first_lines("ab", 2) == ["a", "b"]
    assert first_lines("abc", 1, " of them") == ["a", "... and 2 more of them"]


def test_a_name_that_was_meant() -> None:
    assert did_you_mean("lerning_rate", ["learning_rate", "epochs"]) == (
        "did you mean 'learning_rate'?"
    )
    assert did_you_mean("xyz", ["b", "a"]) == "known: a, b."
    assert did_you_mean("xyz", ["b", "a"], "there is none.") == "there is none."
    assert closest("s/16", ["S/16", "B/16"]) == "S/16"
    assert closest("xyz", []) is None


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (12, "12 bytes"),
        (40_123, "40 kB"),
        (1_250_000, "1 MB"),
        (999_400_000, "999 MB"),
        (999_900_000, "999.9 MB"),
        (141e9, "141.0 GB"),
    ],
)
def test_byte_size(count: float, text: str) -> None:
    assert byte_size(count) == text


def test_needed_and_free_bytes_differ_where_they_are_shown() -> None:
    assert byte_size(12.34e9, 2) == "12.34 GB" != byte_size(12.31e9, 2)


def test_clock() -> None:
    assert clock(65) == "1:05"
    assert clock(7384) == "2:03:04"
    assert clock(0.4) == "0:00"
