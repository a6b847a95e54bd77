"""Ctrl-C: once finishes the step and saves, twice stops at once."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def interrupts() -> Iterator[list[int]]:
    """Ctrl-C (SIGINT) and SIGTERM ask once for a stop after the step; the same again stops at once.

    torchrun answers a Ctrl-C with a SIGTERM to each process, so one of each is still one wish.
    Yields a list that is empty until then. Outside the main thread signals are left alone.
    """
    received: list[int] = []
    previous: dict[signal.Signals, Any] = {}

    def ask(number: int, _: object) -> None:
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread
        previous.clear()
    try:
        yield received
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)
