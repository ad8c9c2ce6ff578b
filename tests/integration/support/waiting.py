"""Waiting for something to happen. Nothing here sleeps for a fixed time and hopes: a waiter holds a
condition that is notified on every change, and gives up only at a generous bound."""
import os
import threading
import time

PRESET = os.environ.get("BH_PRESET", "asan")
# Sanitized builds are several times slower, and the machine may be busy with other work.
SCALE = float(os.environ.get("BH_TIMEOUT_SCALE", "1")) * (2 if PRESET in ("asan", "tsan") else 1)
PATIENCE_S = 30 * SCALE
# Before a command: it is killed when the test run dies, however that comes about.
GUARD = ["setpriv", "--pdeathsig", "KILL"]


class Changing:
    """Something whose state changes in other threads; hold `changed` while you change it."""

    def __init__(self):
        self.changed = threading.Condition()

    def wait_until(self, predicate, what, patience_s=None):
        """The first true value of predicate(), which runs with `changed` held."""
        end = time.monotonic() + (PATIENCE_S if patience_s is None else patience_s * SCALE)
        with self.changed:
            while True:
                value = predicate()
                if value:
                    return value
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"waited in vain: {what}")
                self.changed.wait(left)
