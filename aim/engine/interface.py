"""What clients know of who draws for them: one engine in this process, or many elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from aim.engine.desk import Tally
from aim.engine.requests import Event, Request


@dataclass(frozen=True)
class Report:
    """What one replica says of itself to a client: its name, the ``version`` of its model and of
    this ``package``, where and in what it computes; how many requests it can run at once, how many
    run and wait, and how many of those are ``others``', of how many ``clients`` in all; and what it
    did since it began.
    """

    name: str
    version: str
    package: str
    device: str
    dtype: str
    max_requests: int
    running: int
    waiting: int
    others: int
    clients: int
    tally: Tally


class Load(Protocol):
    """How much is under way; all numbers are of requests."""

    @property
    def max_requests(self) -> int:
        """How many can run at once, 1 at the least."""

    @property
    def running(self) -> int:
        """How many run."""

    @property
    def waiting(self) -> int:
        """How many wait in line."""

    @property
    def room(self) -> int:
        """How many could begin now."""

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""


class Feed(Iterator[Event], Protocol):
    """The events of some requests as they come; see ``aim.engine.Subscription``."""

    @property
    def pending(self) -> int:
        """How many requests have not told their last."""

    @property
    def more(self) -> bool:
        """Whether the next event is here."""

    def rest(self, seconds: float) -> None:
        """Wait for no Progress for so long."""

    def submit(self, request: Request) -> None:
        """One more request."""

    def close(self) -> None:
        """Cancel what is not done, from any thread."""


class Service(Protocol):
    """Draws what anybody asks for, from any thread: ``aim.engine.Server`` is one."""

    @property
    def engine(self) -> Load:
        """How busy it is."""

    @property
    def tally(self) -> Tally:
        """What it did since it began."""

    @property
    def alive(self) -> bool:
        """Whether it will ever draw again; where not, another one has to be started."""

    @property
    def reports(self) -> Sequence[Report]:
        """What its replicas said last; empty where everything is in this process."""

    def why_not(self) -> str:
        """Why nothing can be drawn now, empty where all is well."""

    def stream(self, *requests: Request) -> Feed:
        """Submit requests and return their events; more may be submitted there."""

    def close(self) -> None:
        """Cancel everything and end."""
