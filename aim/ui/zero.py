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

from aim.engine import Cancelled, Engine, Event, Failed, Finished, Progress, Request
from aim.engine.requests import LAST
from aim.engine.server import Tally
from aim.errors import AimError
from aim.models.prior import Prior
from aim.pipeline import Pipeline

SECONDS = 60  # of the GPU that a drawing asks for; a shorter time gets a better place in line
MOST = 16  # drawings of one person at once
Drive = Callable[[Request], Generator[Event, None, None]]


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
    pipe.use_server(ZeroServer(spaces.GPU(duration=SECONDS)(_driver(pipe.model, device))))


def _driver(model: Prior, device: str) -> Drive:
    def drive(request: Request) -> Generator[Event, None, None]:
        """In the process that has the GPU: the events of one request. Eager, as kernels and graphs
        would be made anew in every call.
        """
        yield from Engine(model.to(device), max_requests=1, captured=False).run([request])

    return drive


class Calls:
    """What the page asks of an engine, here of all calls together."""

    max_requests = MOST
    waiting = 0  # the line is that of ``spaces``

    def __init__(self) -> None:
        self.running = 0

    @property
    def idle(self) -> bool:
        """Nobody draws."""
        return not self.running


class ZeroServer:
    """Stands in for ``aim.engine.Server``: every request is a call of its own."""

    def __init__(self, drive: Drive) -> None:
        self.engine, self.tally = Calls(), Tally()
        self._drive = drive
        self._lock = threading.Lock()

    def stream(self, request: Request) -> ZeroSubscription:
        """The events of a request; the call begins when the first one is asked for."""
        self.count(None)
        return ZeroSubscription(self, request, self._drive(request))

    def count(self, event: Event | None) -> None:
        """Take note of a request, or of what became of one."""
        with self._lock:
            if event is None:
                self.tally.requests += 1
                self.engine.running += 1
            else:
                self.tally.count(event)
                self.engine.running -= isinstance(event, LAST)

    def close(self) -> None:
        """There is nothing to close between calls."""


class ZeroSubscription(Iterator[Event]):
    """The events of one call. ``close`` may be called from any thread; the call ends before its
    next event.
    """

    def __init__(
        self, server: ZeroServer, request: Request, events: Generator[Event, None, None]
    ) -> None:
        self.request, self.step = request, 0
        self._server, self._events = server, events
        self._closed = self._done = False

    def __next__(self) -> Event:
        if self._done:
            raise StopIteration
        event: Event | None = None
        if not self._closed:
            try:
                event = next(self._events)
            except (
                Exception
            ) as error:  # of the model, or spaces' own: no GPU is free, the time is over
                event = Failed(self.request.id, error)
        if event is None or self._closed:
            event = Cancelled(self.request.id)
        if isinstance(event, (Progress, Finished)):
            self.step = len(event.codes)
        if isinstance(event, LAST):
            self._done = True
            # here, as a generator can only be closed by the thread that runs it
            self._events.close()
        self._server.count(event)
        return event

    def close(self) -> None:
        """Stop drawing."""
        self._closed = True

    def __del__(self) -> None:
        if not self._done:
            self._done = True
            self._events.close()
            self._server.count(Cancelled(self.request.id))
