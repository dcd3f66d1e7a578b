"""What travels between a client and replicas elsewhere, and what carries it. No tensors: codes and
counts; pictures are made where the codes arrive.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from aim.engine import Event, Report, Request


@dataclass(frozen=True)
class Call:
    """A request for a model of ``version`` on its way to a replica; ``number`` counts the calls of
    ``client``, and ``beat`` its beats before this one.
    """

    client: str
    number: int
    beat: int
    version: str
    request: Request


@dataclass(frozen=True)
class Beat:
    """The ``number``-th sign of life of a client; ``calls`` are those that it still hears."""

    client: str
    number: int
    calls: frozenset[int]


class Fleet(Protocol):
    """Carries calls to replicas; used in one event loop."""

    def draw(self, call: Call) -> AsyncGenerator[Event, None]:
        """The events of a call as some replica tells them, perhaps once there is one. Closing the
        generator cancels the drawing. Raises anything where the replica ends before it.
        """

    async def beat(self, beat: Beat) -> list[Report]:
        """Tell every replica, and return what those say of themselves that answer soon."""

    def close(self) -> None:
        """Let go of the replicas, and end those that nobody else uses."""
