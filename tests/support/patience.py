"""Waiting in tests: for what other threads and processes bring about, and no longer than a test may take."""

import time


def wait_until(condition, seconds=10.0):
    """Return once the condition holds; fail where it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
