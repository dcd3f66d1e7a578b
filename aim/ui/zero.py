"""ZeroGPU Spaces: the GPU is there only inside a call, in a process forked for it. Each drawing
drives an engine of its own there.

The package ``spaces`` does the forking. What crosses between the processes are requests and events,
which hold no tensors. Pictures and previews are made where the page is, on the CPU.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

from aim.engine import Cancelled, Engine, Event, Failed, Request
from aim.engine.desk import Tally
from aim.engine.requests import LAST
from aim.errors import AimError
from aim.models.prior import Prior
from aim.pipeline import Pipeline

SECONDS = 60  # of the GPU that a drawing asks for; a shorter time gets a better place in line
MOST = 16  # drawings of one person at once
Drive = Callable[[list[Request]], Generator[Event, None, None]]


def use_zero_gpu(pipe: Pipeline, device: str = "cuda") -> None:
    """Let every drawing of ``pipe``, which is on the CPU, run on ``device`` in a process that
    ``spaces`` forks for it.

    AimError where ``spaces`` is not installed.
    """
    try:
        spaces: Any = importlib.import_module("spaces")
    except ImportError as error:
        raise AimError(
            "a ZeroGPU Space needs the package spaces, which Spaces install by themselves: pip "
            "install spaces"
        ) from error
    drive = spaces.GPU(duration=SECONDS)(_driver(pipe.model, device))
    pipe.use_server(lambda _: ZeroServer(drive))


def _driver(model: Prior, device: str) -> Drive:
    def drive(requests: list[Request]) -> Generator[Event, None, None]:
        """In the process that has the GPU: the events of requests, drawn together. Eager, as
        kernels and graphs would be made anew in every call.
        """
        engine = Engine(model.to(device), max_requests=len(requests), captured=False)
        yield from engine.run(requests)

    return drive


class Calls:
    """What the page asks of an engine, here of all calls together."""

    max_requests = room = MOST
    waiting = 0  # the line is that of ``spaces``

    def __init__(self) -> None:
        self.running = 0

    @property
    def idle(self) -> bool:
        """Nobody draws."""
        return not self.running


class ZeroServer:
    """Stands in for ``aim.engine.Server``: what a client submits at once is one call."""

    alive = True  # each call has a process of its own
    reports = ()

    def __init__(self, drive: Drive) -> None:
        self.engine, self.tally = Calls(), Tally()
        self.drive = drive
        self._lock = threading.Lock()

    def stream(self, *requests: Request) -> ZeroSubscription:
        """The events of requests; the call begins when the first one is asked for."""
        subscription = ZeroSubscription(self)
        for request in requests:
            subscription.submit(request)
        return subscription

    def count(self, event: Event | None) -> None:
        """Take note of a request, or of what became of one."""
        with self._lock:
            if event is None:
                self.tally.requests += 1
                self.engine.running += 1
            else:
                self.tally.count(event)
                self.engine.running -= isinstance(event, LAST)

    def why_not(self) -> str:
        """Whether a GPU is free is known only to ``spaces``."""
        return ""

    def close(self) -> None:
        """There is nothing to close between calls."""


class ZeroSubscription(Iterator[Event]):
    """The events of one call after another. ``close`` may be called from any thread; the call ends
    before its next event.
    """

    more = False  # nothing comes before it is asked for

    def __init__(self, server: ZeroServer) -> None:
        self._server = server
        self._todo: list[Request] = []
        self._pending: set[int] = set()
        self._events: Generator[Event, None, None] | None = None
        self._closed = False

    @property
    def pending(self) -> int:
        """How many requests have not told their last."""
        return len(self._pending)

    def rest(self, seconds: float) -> None:
        """There is nobody else who would wait."""

    def submit(self, request: Request) -> None:
        """One more request: of the call that begins next."""
        self._server.count(None)
        self._todo.append(request)
        self._pending.add(request.id)

    def __next__(self) -> Event:
        if not self._pending:
            raise StopIteration
        event: Event | None = None
        if not self._closed:
            if self._events is None:
                self._events, self._todo = _call(self._server.drive, self._todo), []
            event = next(self._events)
        if event is None or self._closed:
            event = Cancelled(min(self._pending))
        if isinstance(event, LAST):
            self._pending.discard(event.request_id)
            if self._events is not None and len(self._pending) == len(self._todo):
                # here, as a generator can only be closed by the thread that runs it
                self._events.close()
                self._events = None
        self._server.count(event)
        return event

    def close(self) -> None:
        """Stop drawing."""
        self._closed = True

    def __del__(self) -> None:
        self._closed = True
        for _ in self:
            pass


def _call(drive: Drive, requests: list[Request]) -> Generator[Event, None, None]:
    """The events of one call, which tells a last one of every request, whatever happens."""
    pending = {request.id for request in requests}
    try:
        for event in drive(requests):
            pending -= {event.request_id} if isinstance(event, LAST) else set()
            yield event
    except Exception as error:  # of the model, or spaces' own: no GPU is free, the time is over
        for request_id in pending:
            yield Failed(request_id, error)
