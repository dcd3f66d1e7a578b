"""One thread that drives an engine for everybody."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

import torch

from aim.device import all_threads, threads
from aim.engine.engine import Engine
from aim.engine.requests import LAST, Cancelled, Event, Failed, Finished, Progress, Request
from aim.errors import GenerationError

# seconds between two looks at whether the thread lives; bounds how long Ctrl-C waits on Windows
_PATIENCE = 0.5


@dataclass
class Tally:
    """What a server did since it began."""

    requests: int = 0
    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    codes: int = 0  # drawn or read, of all that finished
    seconds: float = 0.0  # of model time, of all that finished
    restarted: int = 0  # begun again, as the replica that drew them ended

    def count(self, event: Event) -> None:
        """Take note of how a request ended."""
        if isinstance(event, Finished):
            self.finished += 1
            self.codes += len(event.codes)
            self.seconds += event.seconds
        self.failed += isinstance(event, Failed)
        self.cancelled += isinstance(event, Cancelled)


class Mailbox:
    """Events on their way to one client; a Progress that nobody took is replaced by what follows
    it.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._news = threading.Condition()
        self._hushed_until = 0.0

    def __len__(self) -> int:
        return len(self._events)

    def hush(self, seconds: float) -> None:
        """Nobody is woken by a Progress for so long."""
        self._hushed_until = time.monotonic() + seconds

    def put(self, event: Event) -> None:
        """One more event, from any thread."""
        with self._news:
            for old in self._events:
                if isinstance(old, Progress) and old.request_id == event.request_id:
                    self._events.remove(old)
                    break
            self._events.append(event)
            if not isinstance(event, Progress) or time.monotonic() >= self._hushed_until:
                self._news.notify_all()

    def take(self, timeout: float) -> Event | None:
        """The next event, None where there is none within ``timeout`` seconds, or nothing but
        Progress while it is hushed.
        """
        end = time.monotonic() + timeout
        with self._news:
            while not self._events or all(isinstance(one, Progress) for one in self._events):
                now = time.monotonic()
                hushed = self._hushed_until - now
                if self._events and hushed <= 0:
                    break
                if now >= end:
                    return None
                self._news.wait(min(end - now, hushed) if hushed > 0 else end - now)
            return self._events.popleft()


class Source(Protocol):
    """What a subscription needs of who draws."""

    @property
    def alive(self) -> bool:
        """Whether more events may come."""

    def submit(self, request: Request, mailbox: Mailbox) -> None:
        """Draw ``request``, whose events go to ``mailbox``."""

    def cancel(self, request_id: int) -> None:
        """Let it end; harmless for one that has. Takes no lock."""


class Subscription(Iterator[Event]):
    """The events of some requests as they come, as ``Server.stream`` returns it; ends when each has
    told that it is Finished, Cancelled or Failed.

    A client that is slow finds only the newest Progress of each. ``close`` may be called from any
    thread and cancels the requests within a step; letting go of the subscription does the same.
    """

    def __init__(self, server: Source) -> None:
        self._server, self._mailbox = server, Mailbox()
        self._pending: set[int] = set()

    @property
    def pending(self) -> int:
        """How many requests have not told their last."""
        return len(self._pending)

    @property
    def more(self) -> bool:
        """Whether the next event is here."""
        return len(self._mailbox) > 0

    def rest(self, seconds: float) -> None:
        """Wait for no Progress for so long: each wakes a thread, for which the engine's waits."""
        self._mailbox.hush(seconds)

    def submit(self, request: Request) -> None:
        """One more request. Raises what ``Engine.submit`` raises, and GenerationError once the
        server is closed.
        """
        self._server.submit(request, self._mailbox)
        self._pending.add(request.id)

    def __next__(self) -> Event:
        if not self._pending:
            raise StopIteration
        while (event := self._mailbox.take(_PATIENCE)) is None:
            if not self._server.alive and (event := self._mailbox.take(0)) is None:
                self._pending.clear()
                raise GenerationError(
                    "the engine's thread has ended, and with it this drawing; draw it again"
                )
        if isinstance(event, LAST):
            self._pending.discard(event.request_id)
        return event

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Cancel the requests that are not done. Whoever waits for the next event gets
        Cancelled.
        """
        for request_id in self._pending.copy():
            self._server.cancel(request_id)


class Server:
    """Drives ``engine`` from one daemon thread, which sleeps when nothing is to do. Everything here
    is thread-safe.

    On a CPU it computes with ``cores`` threads, for None with as many as PyTorch would take.
    """

    reports = ()  # as of ``Service``: there are no replicas

    def __init__(self, engine: Engine, cores: int | None = None) -> None:
        self.engine = engine
        self._mailboxes: dict[int, Mailbox] = {}
        self._lock = threading.Lock()  # of the mailboxes and of closing
        # may be put to from a garbage collector, anywhere
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._closing, self._begun = False, threading.Event()
        self.tally = Tally()
        self._thread = threading.Thread(target=self._serve, name="aim-engine", daemon=True)
        if engine.model.device.type == "cpu":
            self._start(cores or all_threads())
        else:
            self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def why_not(self) -> str:
        """Why nothing can be drawn now, empty where all is well."""
        return "" if self.alive else "its engine has ended; another one begins"

    def stream(self, *requests: Request) -> Subscription:
        """Submit requests and return their events; more may be submitted there."""
        subscription = Subscription(self)
        for request in requests:
            subscription.submit(request)
        return subscription

    def submit(self, request: Request, mailbox: Mailbox) -> None:
        """Submit a request whose events go to ``mailbox``, as ``Subscription.submit`` does."""
        with self._lock:
            if self._closing:
                raise GenerationError("the engine is closed; load the model again")
            self.engine.submit(request)  # its events are delivered after this lock is free
            self._mailboxes[request.id] = mailbox
            self.tally.requests += 1
        self._wake.put(None)

    def cancel(self, request_id: int) -> None:
        """As ``Engine.cancel``."""
        self.engine.cancel(request_id)

    def close(self) -> None:
        """Cancel everything and end the thread, waiting for the step that runs. Takes no lock, as
        ``Engine.cancel``.
        """
        self._closing = True
        self._wake.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _start(self, cores: int) -> None:
        """Start the thread with so many CPU threads of PyTorch's, which gives a new thread as many
        as were asked for last.
        """
        with threads(cores):
            self._thread.start()
            self._begun.wait()

    def _serve(self) -> None:
        torch.get_num_threads()  # from here on, what this thread has
        self._begun.set()
        while not self._closing:
            if self.engine.idle:
                self._wake.get()
            self._deliver(self.engine.step())
        with self._lock:  # whoever was inside it has entered, nobody enters after it
            left = list(self._mailboxes)
        for request_id in left:
            self.engine.cancel(request_id)
        self._deliver(self.engine.step())
        self.engine.drain()

    def _deliver(self, events: list[Event]) -> None:
        if not events:
            return
        with self._lock:
            for event in events:
                self.tally.count(event)
                last = isinstance(event, LAST)
                mailbox = (
                    self._mailboxes.pop(event.request_id, None)
                    if last
                    else self._mailboxes.get(event.request_id)
                )
                if mailbox is not None:
                    mailbox.put(event)
