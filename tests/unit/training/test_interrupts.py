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
    before = signal.getsignal(signal.SIGTERM)
    with interrupts() as received:
        signal.raise_signal(signal.SIGTERM)
        assert received == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is before


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
