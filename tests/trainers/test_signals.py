import os
import signal
import threading

from trainers.signals import noting_requests


def test_a_request_is_recorded_and_the_former_handler_restored() -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with noting_requests() as stop:
        assert stop.received is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is handler


def test_nothing_happens_outside_the_main_thread() -> None:
    seen = []

    def enter() -> None:
        with noting_requests() as stop:
            seen.append(stop.received)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [None]
