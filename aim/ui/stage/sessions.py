"""Who does what now, so that Stop and a closed tab end it."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from aim.ui.line import Line, Owner, Stoppable

T = TypeVar("T", bound=Stoppable)


class Sessions(Generic[T]):
    """Who does what now, of one kind, so that Stop and a closed tab end it; ``make`` makes what one
    of them does, and ``line`` admits it.
    """

    def __init__(self, make: Callable[[Owner, Line], T], line: Line) -> None:
        self._make, self._line = make, line
        self._running: defaultdict[str, set[T]] = defaultdict(set)
        self._begun = 0
        self._lock = threading.Lock()

    @property
    def begun(self) -> int:
        """How many were begun so far."""
        return self._begun

    @property
    def busy(self) -> bool:
        """Whether somebody does something now."""
        return bool(self._running)

    @contextmanager
    def one(self, request: Any) -> Iterator[T]:
        """A new one while inside, of whoever makes ``request``; QueueFull says why it cannot be
        now.
        """
        owner = Owner.of(request)
        mine, session = self._make(owner, self._line), owner.session
        with self._line.admit(owner, mine):
            with self._lock:
                self._running[session].add(mine)
                self._begun += 1
            try:
                yield mine
            finally:
                with self._lock:
                    self._running[session].discard(mine)
                    if not self._running[session]:
                        del self._running[session]

    def stop(self, session: str) -> int:
        """Stop all that is the session's; returns how many there were."""
        with self._lock:
            running = list(self._running.get(session, ()))
        for one in running:
            one.stop()
        return len(running)
