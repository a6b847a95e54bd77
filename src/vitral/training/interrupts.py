"""Ctrl-C: once finishes the step and saves, twice stops at once."""

from __future__ import annotations

import atexit
import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Any

TOGETHER_SECONDS = 5.0  # between signals of one wish


@contextlib.contextmanager
def interrupts() -> Iterator[list[int]]:
    """Ctrl-C (SIGINT) and SIGTERM ask once for a stop after the step; the same again stops at once.

    torchrun answers a Ctrl-C with a SIGTERM to each process, so one of each is still one wish. So
    are two SIGTERMs that come together: a scheduler sends one to every process, and torchrun, which
    has one of them, another to each of its own.
    Yields a list that is empty until then. Outside the main thread signals are left alone.
    """
    received: list[int] = []
    previous: dict[signal.Signals, Any] = {}
    began = time.monotonic()
    before: Any = signal.getsignal(signal.SIGTERM)

    def ask(number: int, _: object) -> None:
        nonlocal began
        if number == signal.SIGTERM and number in received:
            if time.monotonic() - began > TOGETHER_SECONDS:
                signal.signal(number, before)
                signal.raise_signal(number)
            return
        began = time.monotonic()
        received.append(number)
        if number == signal.SIGINT:
            signal.signal(number, previous[signal.SIGINT])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread
        previous.clear()
    try:
        yield received
    finally:
        if signal.SIGTERM in received:
            # the second of two may come when the state is saved already: `ask` stays for it, and
            # while Python ends, which takes its handlers away, it is ignored
            del previous[signal.SIGTERM]
            atexit.register(signal.signal, signal.SIGTERM, signal.SIG_IGN)
        for each, handler in previous.items():
            signal.signal(each, handler)
