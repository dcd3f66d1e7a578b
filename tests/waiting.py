"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(test: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait until ``test`` holds; False if it does not within ``seconds``."""
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
