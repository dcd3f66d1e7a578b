"""Who does what now, so that Stop and a closed tab end it."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar


class Stoppable(Protocol):
    """What somebody began and may want to end."""

    def stop(self) -> object:
        """End it, from any thread."""


T = TypeVar("T", bound=Stoppable)


class Sessions(Generic[T]):
    """Who does what now, so that Stop and a closed tab end it; ``make`` makes what one of them
    does.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
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
    def one(self, session: str) -> Iterator[T]:
        """A new one that is the session's while inside."""
        mine = self._make()
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
