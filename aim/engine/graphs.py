"""The step for every size of batch: captured when it is first needed, where the device can, and
kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar
from weakref import WeakMethod

from aim.engine.transfer import DeviceQueue

F = TypeVar("F", bound=Callable[..., Any])
log = logging.getLogger("aim")


class Graphs:
    """Runs ``step(rows, width)`` on ``queue``, as a graph if ``captured`` and the device has such.

    ``idle()`` is a context in which a step changes nothing. A size that cannot be captured runs
    without, with a line in the log. Both are methods of the one that holds this, which it does not
    hold: so that its pools are freed as soon as it is let go.
    """

    def __init__(
        self,
        queue: DeviceQueue,
        step: Callable[[int, int], None],
        idle: Callable[[], AbstractContextManager[object]],
        captured: bool = True,
    ) -> None:
        self._queue = queue
        self._step, self._idle = WeakMethod(step), WeakMethod(idle)
        self._captured = captured and queue.captures
        # None where a size could not be captured
        self._runs: dict[tuple[int, int], Callable[[], None] | None] = {}
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
        if self._captured and (rows, width) not in self._runs:
            self._runs[rows, width] = self._prepare(rows, width)
        if run := self._runs.get((rows, width)):
            run()
        else:
            self._held(self._step)(rows, width)

    def _held(self, method: WeakMethod[F]) -> F:
        found = method()
        assert found is not None, "its holder calls this"
        return found

    def _prepare(self, rows: int, width: int) -> Callable[[], None] | None:
        step = partial(self._held(self._step), rows, width)
        started = time.perf_counter()
        with self._held(self._idle)():
            self._queue.warm(step)
            warmed = time.perf_counter()
            self.warmup += warmed - started
            try:
                run = self._queue.capture(step)
            except Exception as error:
                log.warning(
                    "The step for %d rows could not be captured, so it is slower: %s", rows, error
                )
                return None
        self.captures += 1
        self.capture += time.perf_counter() - warmed
        return run
