import os
import signal
import threading

from trainers.signals import StopRequest


def test_a_request_is_noted_and_what_was_before_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert stop.received is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_thread_that_may_not_set_handlers_goes_without() -> None:
    seen = []

    def enter() -> None:
        with StopRequest() as stop:
            seen.append(stop.received)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [None]
