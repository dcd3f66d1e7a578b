"""Who may work here now. Every drawing, comparison and measurement of a page is admitted in this
one place, and ends from here when the server does. In what order pictures are drawn is the
engine's: see ``aim.engine.scheduler``.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from aim.errors import QueueFull
from aim.settings import Limits

_LOOK = 0.05  # seconds between two looks at whether all are done


class Stoppable(Protocol):
    """What somebody began and may want to end."""

    def stop(self) -> object:
        """End it, from any thread."""


class Owner(NamedTuple):
    """Whose a piece of work is."""

    address: str
    session: str

    @classmethod
    def of(cls, request: Any) -> Owner:
        """Of a ``gr.Request``."""
        client = getattr(request, "client", None)
        return cls(client.host if client else "", request.session_hash or "")


class Line:
    """Of one page. Thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.ending = False  # nobody is let in any more
        self.refused = 0  # so far
        self._lock = threading.Lock()
        self._work: dict[int, tuple[Owner, Stoppable]] = {}

    @property
    def busy(self) -> int:
        """Pieces of work that run or wait."""
        return len(self._work)

    @contextmanager
    def admit(self, owner: Owner, work: Stoppable) -> Iterator[None]:
        """``work`` is under way while inside; QueueFull says why it cannot begin now."""
        with self._lock:
            if why := self._why_not(owner):
                self.refused += 1
                raise QueueFull(why)
            self._work[id(work)] = owner, work
        try:
            yield
        finally:
            with self._lock:
                del self._work[id(work)]

    def _why_not(self, owner: Owner) -> str:
        limits = self.limits
        sessions = Counter(one.session for one, _ in self._work.values())
        addresses = Counter(one.address for one, _ in self._work.values())
        if self.ending:
            return "This server is about to end or to start again; try again in a minute."
        if sessions[owner.session] >= limits.share:
            return (
                f"{limits.share} drawings of yours are under way here, which is as many as one may "
                "have; wait for one of them, or press Stop."
            )
        if addresses[owner.address] >= limits.address_share:
            return (
                f"{limits.address_share} drawings are under way here for your address; try again "
                "in a moment."
            )
        if len(self._work) >= limits.places + limits.waiting:
            return f"{len(self._work)} others draw or wait here; try again in a moment."
        return ""

    def end(self, seconds: float = 2.0) -> int:
        """Let nobody in any more, and stop who is here, who hear of it within ``seconds``; returns
        how many that were.
        """
        self.ending = True
        with self._lock:
            left = [work for _, work in self._work.values()]
        for work in left:
            work.stop()
        end = time.monotonic() + seconds
        while self._work and time.monotonic() < end:
            time.sleep(_LOOK)
        return len(left)
