"""Reasons in sentences, and quiet that does not last."""

from __future__ import annotations

import threading
import warnings

import pytest

from vitral.errors import DataError
from vitral.images.reading import PIXEL_LIMIT, check_pixels, reading


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError("image file is truncated (3 bytes not processed)"), "truncated"),
        (EOFError(), "truncated"),
        (MemoryError(), "more memory"),
        (KeyError("x"), "damaged"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
)
def test_whatever_a_decoder_raises_becomes_a_sentence(error, sentence):
    with pytest.raises(DataError, match=sentence), reading(b"data"):
        raise error


def test_a_reason_that_is_known_is_kept():
    with pytest.raises(DataError, match="mine"), reading(b"data"):
        raise DataError("mine")


def test_interrupts_pass():
    with pytest.raises(KeyboardInterrupt), reading(b"data"):
        raise KeyboardInterrupt


def test_size_limits():
    check_pixels((PIXEL_LIMIT, 1))
    with pytest.raises(DataError, match="megapixels"):
        check_pixels((PIXEL_LIMIT, 2))
    with pytest.raises(DataError, match="empty"):
        check_pixels((0, 5))


def test_overlapping_threads_leave_the_filters_as_they_were():
    before = list(warnings.filters)
    entered, leave = threading.Event(), threading.Event()

    def other() -> None:
        with reading(b""):
            entered.set()
            leave.wait(5)

    thread = threading.Thread(target=other)
    with reading(b""):
        thread.start()
        entered.wait(5)
        warnings.warn("hidden", stacklevel=1)
    warnings.warn("still hidden", stacklevel=1)  # the other thread is inside
    leave.set()
    thread.join()
    assert warnings.filters == before
    with pytest.warns(UserWarning, match="shown"):
        warnings.warn("shown", stacklevel=1)
