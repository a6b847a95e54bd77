import signal
import threading

import pytest

from vitral.training.interrupts import interrupts


def test_once_asks_twice_stops() -> None:
    with pytest.raises(KeyboardInterrupt), interrupts() as received:
        assert not received
        signal.raise_signal(signal.SIGINT)
        assert received
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interrupts():
        assert signal.getsignal(signal.SIGINT) is not before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_sigterm_right_after_the_end_is_still_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped: list[int] = []
    kept = signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    theirs = signal.getsignal(signal.SIGTERM)
    try:
        with interrupts() as received:
            signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM]
        signal.raise_signal(signal.SIGTERM)
        assert not stopped
        monkeypatch.setattr("vitral.training.interrupts.TOGETHER_SECONDS", -1.0)
        signal.raise_signal(signal.SIGTERM)
        assert stopped == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, kept)


def test_sigterms_that_come_together_are_one_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    try:
        with interrupts() as received:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            assert received == [signal.SIGTERM] and not stopped
            monkeypatch.setattr("vitral.training.interrupts.TOGETHER_SECONDS", -1.0)
            signal.raise_signal(signal.SIGTERM)
            assert stopped == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    seen: list[bool] = []

    def work() -> None:
        with interrupts() as received:
            seen.append(bool(received))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
