"""Wait for another thread or process."""

import time
from collections.abc import Callable

WAIT_LIMIT_S = 10.0  # within a process; a test that waits longer has failed


def wait_until(
    condition: Callable[[], bool], limit_s: float = WAIT_LIMIT_S, pause_s: float = 0.01
) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(pause_s)
