"""Where clients hand in requests and get events, whoever draws them."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

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


class Subscription(Iterator[Event]):
    """The events of some requests as they come, as ``Desk.stream`` returns it; ends when each has
    told that it is Finished, Cancelled or Failed.

    A client that is slow finds only the newest Progress of each. ``close`` may be called from any
    thread and cancels the requests within a step; letting go of the subscription does the same.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk, self._mailbox = desk, Mailbox()
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
        desk is closed.
        """
        self._desk.submit(request, self._mailbox)
        self._pending.add(request.id)

    def __next__(self) -> Event:
        if not self._pending:
            raise StopIteration
        while (event := self._mailbox.take(_PATIENCE)) is None:
            if not self._desk.alive and (event := self._mailbox.take(0)) is None:
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
            self._desk.cancel(request_id)


class Desk(ABC):
    """Requests that are under way, and whom their events go to; one daemon thread, which a subclass
    starts, sees to them. Everything public is thread-safe.
    """

    def __init__(self, name: str) -> None:
        self.tally = Tally()
        self._mailboxes: dict[int, Mailbox] = {}
        self._lock = threading.Lock()  # of the mailboxes, of closing, of entering and leaving
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stream(self, *requests: Request) -> Subscription:
        """Submit requests and return their events; more may be submitted there."""
        subscription = Subscription(self)
        for request in requests:
            subscription.submit(request)
        return subscription

    def submit(self, request: Request, mailbox: Mailbox) -> None:
        """Draw ``request``, whose events go to ``mailbox``. Raises what ``Engine.submit`` raises,
        and GenerationError where nobody will draw it.
        """
        with self._lock:
            if self._closing:
                raise GenerationError("the model was closed; load it again")
            self._enter(request)  # its events are told after this lock is free
            self._mailboxes[request.id] = mailbox
            self.tally.requests += 1
        self._wake()

    @abstractmethod
    def cancel(self, request_id: int) -> None:
        """Let it end; harmless for one that has. Takes no lock: a garbage collector may call it,
        inside any line of code.
        """

    def close(self) -> None:
        """Cancel everything and end the thread, waiting for the step that runs. Takes no lock, as
        ``cancel``.
        """
        self._closing = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    @abstractmethod
    def _run(self) -> None:
        """What the thread does until ``_closing``."""

    @abstractmethod
    def _enter(self, request: Request) -> None:
        """Take it on, or raise why not. In the lock."""

    @abstractmethod
    def _leave(self, request_id: int) -> None:
        """It has told its last. In the lock."""

    @abstractmethod
    def _wake(self) -> None:
        """Something changed: the thread is to look."""

    def _left(self) -> list[int]:
        """Those under way at the end: nobody enters after this."""
        with self._lock:
            self._closing = True
            return list(self._mailboxes)

    def _tell(self, *events: Event) -> None:
        """Pass events on to whoever still waits for them."""
        with self._lock:
            for event in events:
                mailbox = self._mailboxes.get(event.request_id)
                if mailbox is None:
                    continue
                self.tally.count(event)
                if isinstance(event, LAST):
                    del self._mailboxes[event.request_id]
                    self._leave(event.request_id)
                mailbox.put(event)
