"""Signs of life, both ways: what a client still hears, and which replicas there are."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from aim._version import __version__
from aim.engine import Report, Request
from aim.errors import GenerationError
from aim.serving.fleet import Beat, Call, Fleet

BEAT = 1.0  # seconds between two signs of life
STALE = 10.0  # seconds after which replicas that say nothing are not counted on
GONE = 60.0  # seconds after which nobody waits for them any more
_log = logging.getLogger("aim")


class Pulse:
    """Of one client with a model of ``version``; used in one event loop."""

    def __init__(self, fleet: Fleet, version: str) -> None:
        self.reports: tuple[Report, ...] = ()  # as last heard
        self._fleet, self._version = fleet, version
        self._client = uuid.uuid4().hex
        self._beats = self._numbers = 0
        self._calls: set[int] = set()  # numbers of those under way
        self._heard = time.monotonic()  # when a replica last answered

    @property
    def gone(self) -> bool:
        """Whether no replica has answered for long."""
        return time.monotonic() - self._heard > GONE

    @contextmanager
    def call(self, request: Request) -> Iterator[Call]:
        """A call that is under way while inside: replicas end it when it is not named any more."""
        self._numbers += 1
        number = self._numbers
        self._calls.add(number)
        try:
            yield Call(self._client, number, self._beats, self._version, request)
        finally:
            self._calls.discard(number)

    async def beat(self) -> None:
        """Show that this client lives, and see who else does."""
        self._beats += 1
        beat = Beat(self._client, self._beats, frozenset(self._calls))
        reports: list[Report] = []
        try:
            reports = await asyncio.wait_for(self._fleet.beat(beat), STALE / 2)
        except Exception as error:  # of whatever carries it; the next one may arrive
            _log.debug("the replicas did not answer: %s", error)
        if reports:
            self._heard = time.monotonic()
            self.reports = tuple(sorted(reports, key=lambda report: report.name))
        elif time.monotonic() - self._heard > STALE:
            self.reports = ()

    async def first(self) -> None:
        """Wait for the first answer. GenerationError where none comes, or of replicas that are not
        as this client is.
        """
        while True:
            await self.beat()
            if self.reports:
                break
            if time.monotonic() - self._heard > STALE:
                raise nobody()
            await asyncio.sleep(BEAT / 4)
        for report in self.reports:
            theirs, ours = (report.version, report.package), (self._version, __version__)
            if theirs != ours:
                raise GenerationError(
                    f"replica {report.name} has version {theirs[0]} of the model in aim "
                    f"{theirs[1]}, and here it is {ours[0]} in aim {ours[1]}; start both with the "
                    "same"
                )


def share(reports: Sequence[Report]) -> int:
    """How many requests one client may have under way: what others leave, and at least as many as
    each would get; 0 where there are no replicas.
    """
    if not reports:
        return 0
    places = sum(report.max_requests for report in reports)
    others = sum(report.others for report in reports)
    return max(places - others, -(-places // max(report.clients for report in reports)))


def nobody() -> GenerationError:
    """That there are no replicas."""
    return GenerationError("no replica answers; try again later")
