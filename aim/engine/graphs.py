"""The step for every size of batch: captured when it is first needed, where the device can, and
kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from aim.engine.transfer import DeviceQueue

log = logging.getLogger("aim")


class Graphs:
    """Runs ``step(rows, width)`` on ``queue``, as a graph if ``captured`` and the device has such.

    ``idle()`` is a context in which a step changes nothing. A size that cannot be captured runs
    without, with a line in the log.
    """

    def __init__(
        self,
        queue: DeviceQueue,
        step: Callable[[int, int], None],
        idle: Callable[[], AbstractContextManager[object]],
        captured: bool = True,
    ) -> None:
        self._queue, self._step, self._idle = queue, step, idle
        self._captured = captured and queue.captures
        self._runs: dict[tuple[int, int], Callable[[], None]] = {}
        self.captures = 0
        self.warmup = self.capture = 0.0  # seconds

    @property
    def seconds(self) -> float:
        """Spent on preparing so far."""
        return self.warmup + self.capture

    def ready(self, rows: int, width: int = 1) -> bool:
        """Whether ``run`` starts at once."""
        return not self._captured or (rows, width) in self._runs

    def run(self, rows: int, width: int = 1) -> None:
        """One step of the first ``rows`` rows, of ``width`` items each."""
        if not self._captured:
            self._step(rows, width)
            return
        if (rows, width) not in self._runs:
            self._runs[rows, width] = self._prepare(rows, width)
        self._runs[rows, width]()

    def _prepare(self, rows: int, width: int) -> Callable[[], None]:
        step = partial(self._step, rows, width)
        started = time.perf_counter()
        with self._idle():
            self._queue.warm(step)
            warmed = time.perf_counter()
            self.warmup += warmed - started
            try:
                run = self._queue.capture(step)
            except Exception as error:
                log.warning(
                    "The step for %d rows could not be captured, so it is slower: %s", rows, error
                )
                return step
        self.captures += 1
        self.capture += time.perf_counter() - warmed
        return run
