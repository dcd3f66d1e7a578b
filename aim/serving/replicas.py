"""Many engines elsewhere behind the interface of one: who is next, who is told what, and what is
begun again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from concurrent.futures import Future
from contextlib import aclosing, suppress
from typing import NamedTuple

from aim.config import PriorConfig
from aim.engine import Cancelled, Event, Failed, Progress, Queued, Report, Request, Started
from aim.engine.desk import Desk
from aim.engine.requests import LAST
from aim.engine.scheduler import Places, Running, Turns
from aim.errors import AimError, GenerationError, InvalidInput
from aim.serving.fleet import Fleet
from aim.serving.pulse import BEAT, Pulse, nobody, share

ATTEMPTS = 5  # replicas that a drawing is begun on
_PAUSE = 0.2  # seconds before the second, twice that before the third
_log = logging.getLogger("aim")


class Busy(NamedTuple):
    """A moment's ``Load``."""

    max_requests: int
    running: int
    waiting: int

    @property
    def room(self) -> int:
        """Requests that could begin now."""
        return max(0, self.max_requests - self.running - self.waiting)

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self.running and not self.waiting


class Replicas(Desk):
    """The ``Service`` of a fleet of replicas of one model. Thread-safe.

    Up to ``max_waiting`` wait in a line of this client's own, from which as many are drawn as the
    replicas have places. A drawing whose replica ends is begun again elsewhere with its seed, and
    its client hears nothing twice. GenerationError where no replica answers at first, or where one
    has another model than ``version``.
    """

    def __init__(
        self, fleet: Fleet, config: PriorConfig, version: str, max_waiting: int = 64
    ) -> None:
        super().__init__("aim-replicas")
        self._fleet, self._pulse = fleet, Pulse(fleet, version)
        self._config = config
        self._turns = Turns(1, max_waiting)
        # outside the lock: a garbage collector may cancel, inside any line of code
        self._cancelled: deque[int] = deque()
        self._places = Places()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._begun: Future[None] = Future()
        self._thread.start()
        self._begun.result()

    @property
    def engine(self) -> Busy:
        """How busy this client's share of the replicas is."""
        turns = self._turns
        return Busy(max(1, turns.max_requests), len(turns.running), len(turns.waiting))

    @property
    def reports(self) -> tuple[Report, ...]:
        """What the replicas said last."""
        return self._pulse.reports

    def why_not(self) -> str:
        """Why nothing can be drawn now, empty where all is well."""
        if not self.alive:
            return "its replicas were let go; they are looked for again"
        return "" if self.reports else "none of its replicas answers"

    def cancel(self, request_id: int) -> None:
        """As ``Engine.cancel``."""
        self._cancelled.append(request_id)
        self._wake()

    def _enter(self, request: Request) -> None:
        request.check(self._config)
        if self._pulse.gone:
            raise nobody()
        if request.id in self._turns:
            raise InvalidInput(f"request id {request.id} is already in use")
        self._turns.add(request)

    def _leave(self, request_id: int) -> None:
        self._turns.remove(request_id)
        self._news.set()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop has ended, and everything with it
            self._loop.call_soon_threadsafe(self._news.set)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        finally:
            self._fleet.close()

    async def _main(self) -> None:
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
        beating = asyncio.create_task(self._beat())
        try:
            while not self._closing:
                await self._news.wait()
                self._news.clear()
                self._change()
        finally:
            for request_id in self._left():
                self._tell(Cancelled(request_id))
            tasks = [beating, *self._tasks.values()]
            pending = set(tasks)
            while pending:  # before Python 3.12 ``wait_for`` may swallow a cancel
                for task in pending:
                    task.cancel()
                _, pending = await asyncio.wait(pending, timeout=0.5)
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _beat(self) -> None:
        try:
            await self._pulse.first()
        except GenerationError as error:
            self._begun.set_exception(error)
            self.close()
            return
        while True:
            self._turns.max_requests = share(self.reports)
            self._news.set()
            if not self._begun.done():
                self._begun.set_result(None)
            await asyncio.sleep(BEAT)
            await self._pulse.beat()

    def _change(self) -> None:
        """Everything that happens between events: leave, begin, tell places."""
        while self._cancelled:
            self._stop(Cancelled(self._cancelled.popleft()))
        if self._pulse.gone:
            for request_id in list(self._mailboxes):
                self._stop(Failed(request_id, nobody()))
        with self._lock:
            joined = self._turns.admit()
            places = self._places.news(self._turns.places())
        self._tell(*places)
        for entry in joined:
            task = asyncio.create_task(self._draw(entry))
            self._tasks[entry.request.id] = task

    def _stop(self, event: Event) -> None:
        if (task := self._tasks.get(event.request_id)) is not None:
            task.cancel()
        self._tell(event)

    async def _draw(self, entry: Running) -> None:
        """Have a request drawn, again elsewhere where a replica ends; a seed is one picture."""
        request_id = entry.request.id
        try:
            for attempt in range(ATTEMPTS):
                if attempt:
                    self.tally.restarted += 1
                    await asyncio.sleep(_PAUSE * attempt)
                try:
                    if await self._call(entry):
                        return
                except Exception as error:  # of the replica, or of what carries its events
                    why = str(error).partition("\n")[0]
                    _log.warning("a drawing begins again, as its replica ended: %s", why)
            text = f"{ATTEMPTS} replicas ended while they drew this; try again in a moment"
            self._tell(Failed(request_id, GenerationError(text)))
        finally:
            self._tasks.pop(request_id, None)

    async def _call(self, entry: Running) -> bool:
        """Have a request drawn by one replica; False where it ended before the drawing."""
        with self._pulse.call(entry.request) as call:
            async with aclosing(self._fleet.draw(call)) as events:
                async for event in events:
                    if isinstance(event, Failed) and not isinstance(event.error, AimError):
                        raise event.error  # another's device may be well
                    if isinstance(event, Cancelled):
                        return False  # not by this client
                    if _is_news(entry, event):
                        self._tell(event)
                    if isinstance(event, LAST):
                        return True
        return False


def _is_news(entry: Running, event: Event) -> bool:
    """Whether an event tells what its client was not told before it was begun again."""
    if isinstance(event, Progress):
        new, entry.step = event.step > entry.step, max(event.step, entry.step)
        return new
    if isinstance(event, (Queued, Started)):
        new, entry.arranged = not entry.arranged, entry.arranged or isinstance(event, Started)
        return new
    return True
