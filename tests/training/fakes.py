"""A clock that a test moves."""

from __future__ import annotations


class Clock:
    """Stands in for the module ``time``: ``now`` moves by ``tick`` at every look, and by hand."""

    def __init__(self) -> None:
        self.now, self.tick = 100.0, 0.0

    def monotonic(self) -> float:
        self.now += self.tick
        return self.now
