"""Who may work here now. Every drawing, comparison and measurement of a page is admitted in this
one place, by the pictures that it has under way, and ends from here when the server does. In what
order pictures are drawn is the engine's: see ``aim.engine.scheduler``. Memory is bounded by them,
too: an engine's pools are made once, of so many pictures.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from aim.errors import QueueFull
from aim.settings import Limits

ENDING = "This server is about to end or to start again; try again in a minute."
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


@dataclass
class _Entry:
    owner: Owner
    work: Stoppable
    pictures: int = 1  # under way at once


class Line:
    """Of one page. Thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.ending = False  # nobody is let in any more
        self.refused = 0  # so far
        self._lock = threading.Lock()
        self._work: dict[int, _Entry] = {}

    @property
    def busy(self) -> int:
        """Pieces of work that run or wait."""
        return len(self._work)

    @property
    def pictures(self) -> int:
        """Pictures that are under way, at the most."""
        return self._sum(lambda _: True)

    @contextmanager
    def admit(self, owner: Owner, work: Stoppable) -> Iterator[None]:
        """``work`` is under way while inside, with one picture until it claims more; QueueFull says
        why it cannot begin now.
        """
        with self._lock:
            if why := self._why_not(owner):
                self.refused += 1
                raise QueueFull(why)
            self._work[id(work)] = _Entry(owner, work)
        try:
            yield
        finally:
            with self._lock:
                del self._work[id(work)]

    def claim(self, work: Stoppable, pictures: int) -> int:
        """How many of the ``pictures`` that are left of ``work`` it may have under way at once: one
        at the least, and more as long as half of the line is free for those who come.
        """
        limits = self.limits
        with self._lock:
            entry = self._work[id(work)]
            mine, near, here = self._sums(entry.owner)
            more = min(
                limits.places - entry.pictures,
                limits.share - mine,
                limits.address_share - near,
                limits.places + limits.waiting // 2 - here,
            )
            entry.pictures = max(1, min(pictures, entry.pictures + max(0, more)))
            return entry.pictures

    def _sum(self, of: Callable[[Owner], bool]) -> int:
        return sum(entry.pictures for entry in list(self._work.values()) if of(entry.owner))

    def _sums(self, owner: Owner) -> tuple[int, int, int]:
        """Pictures under way of a session, of its address and of all."""
        return (
            self._sum(lambda one: one.session == owner.session),
            self._sum(lambda one: one.address == owner.address),
            self.pictures,
        )

    def _why_not(self, owner: Owner) -> str:
        limits, (mine, near, here) = self.limits, self._sums(owner)
        if self.ending:
            return ENDING
        if mine >= limits.share:
            return (
                f"{mine} pictures of yours are under way here, which is as many as one may have; "
                "wait for one of them, or press Stop."
            )
        if near >= limits.address_share:
            return f"{near} pictures are under way here for your address; try again in a moment."
        if here >= limits.places + limits.waiting:
            return f"{here} pictures are drawn or wait here; try again in a moment."
        return ""

    def stop(self, session: str) -> None:
        """Stop all that a session does."""
        with self._lock:
            theirs = [one.work for one in self._work.values() if one.owner.session == session]
        for work in theirs:
            work.stop()

    def end(self, seconds: float = 2.0) -> int:
        """Let nobody in any more, and stop who is here, who hear of it within ``seconds``; returns
        how many that were.
        """
        self.ending = True
        with self._lock:
            left = [entry.work for entry in self._work.values()]
        for work in left:
            work.stop()
        end = time.monotonic() + seconds
        while self._work and time.monotonic() < end:
            time.sleep(_LOOK)
        return len(left)
