import math
import signal
import time

import pytest

from autocrossdim.errors import UserError
from autocrossdim.parallel import map_cases


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order(processes: int) -> None:
    assert map_cases(math.isqrt, [0, 1, 4, 9, 16, 25], processes, "Roots") == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("processes", [1, 2])
def test_the_real_error_of_a_worker_is_shown(processes: int) -> None:
    with pytest.raises(ValueError, match="nonnegative"):
        map_cases(math.isqrt, [0, 1, -4, 9, 16], processes, "Roots")


def test_a_killed_worker_is_an_error_within_seconds() -> None:
    started = time.monotonic()
    harmless = signal.SIGCONT
    with pytest.raises(UserError, match="killed.*--processes 1"):
        map_cases(signal.raise_signal, [harmless, signal.SIGKILL, harmless, harmless], 2, "Signals")
    assert time.monotonic() - started < 20
