"""One of many: an engine that draws for clients elsewhere, and does not take it for granted that
they still listen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, replace

from aim._version import __version__
from aim.engine import Event, Failed, Finished, Mailbox, Progress, Report, Request, Server
from aim.engine.requests import LAST, new_id
from aim.errors import AimError, GenerationError
from aim.serving.fleet import Beat, Call

LEASE = 15.0  # seconds after which a call ends whose client was not heard of
PACE = 0.05  # seconds between two Progress of a drawing; a client gets the newest
HOLD = 1.0  # seconds before it is told that the model failed; who fails at once looks idle
FAILURES = 3  # of the model one after another, after which its device is given up
_PATIENCE = 0.5  # seconds between two looks at whether the engine lives
Key = tuple[str, int]  # a client and a number of its calls


class _Post(Mailbox):
    """A mailbox that a coroutine waits at."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._some, self._last = asyncio.Event(), asyncio.Event()

    def put(self, event: Event) -> None:
        super().put(event)
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._ring, isinstance(event, LAST))

    async def next(self) -> Event | None:
        """The next event, None where there was none for a while."""
        self._some.clear()
        if (event := self.take(0)) is None:
            await _within(self._some, _PATIENCE)
            event = self.take(0)
        return event

    async def rest(self) -> None:
        """Let codes come together, but for the last."""
        await _within(self._last, PACE)

    def _ring(self, last: bool) -> None:
        self._some.set()
        if last:
            self._last.set()


async def _within(event: asyncio.Event, seconds: float) -> None:
    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


@dataclass
class _Lease:
    """A call under way: the id of its request here, how many beats its client had had, and what
    ends it.
    """

    request_id: int
    beat: int
    timer: asyncio.TimerHandle


class Replica:
    """Draws calls of any client with ``server``, whose model is of ``version``; all of it in one
    event loop.

    A call ends when its generator is closed, when a beat of its client does not name it, or when
    its client is not heard of for ``lease`` seconds, whichever is noticed first.
    """

    def __init__(
        self,
        name: str,
        server: Server,
        version: str,
        device: str = "cpu",
        dtype: str = "float32",
        lease: float = LEASE,
    ) -> None:
        self.name, self.server, self.version = name, server, version
        self._where, self._lease = (device, dtype), lease
        self._calls: dict[Key, _Lease] = {}
        self._failures = 0  # since a drawing was finished

    async def draw(self, call: Call) -> AsyncGenerator[Event, None]:
        """The events of a call, to the last; a client that is slow gets the newest Progress.
        GenerationError where the engine ends.
        """
        asked = call.request
        request: Request = replace(asked, id=new_id())  # those of many clients meet here
        post = _Post()
        try:
            self._submit(call.version, request, post)
        except AimError as error:
            yield Failed(asked.id, error)
            return
        key = call.client, call.number
        self._calls[key] = _Lease(request.id, call.beat, self._timer(key))
        try:
            while True:
                event = await post.next()
                if event is None:
                    self._look()
                    continue
                await self._judge(event)
                yield replace(_crossing(event), request_id=asked.id)
                if isinstance(event, LAST):
                    return
                if isinstance(event, Progress):
                    await post.rest()
        finally:
            self._end(key)
            self.server.cancel(request.id)

    def beat(self, beat: Beat) -> Report:
        """Take note that a client lives and what it still hears; how this replica is."""
        for key, lease in list(self._calls.items()):
            if key[0] == beat.client and key[1] in beat.calls:
                lease.timer.cancel()
                lease.timer = self._timer(key)
            elif key[0] == beat.client and lease.beat < beat.number:
                self._end(key)
        others = [client for client, _ in self._calls if client != beat.client]
        engine = self.server.engine
        return Report(
            self.name,
            self.version,
            __version__,
            *self._where,
            max_requests=engine.max_requests,
            running=engine.running,
            waiting=engine.waiting,
            others=len(others),
            clients=len({*others, beat.client}),
            tally=self.server.tally,
        )

    def check(self) -> None:
        """GenerationError where this replica cannot draw any more and has to be replaced."""
        self._look()
        if self._failures >= FAILURES:
            raise GenerationError(f"the model failed {self._failures} times, one after another")

    def _look(self) -> None:
        if not self.server.alive:
            raise GenerationError("the engine's thread has ended")

    async def _judge(self, event: Event) -> None:
        if isinstance(event, Failed) and not isinstance(event.error, AimError):
            self._failures += 1
            await asyncio.sleep(HOLD)
        elif isinstance(event, Finished):
            self._failures = 0

    def _submit(self, version: str, request: Request, post: _Post) -> None:
        if version != self.version:
            raise GenerationError(
                f"this page has version {version} of the model, and this replica {self.version}; "
                "start both with the same"
            )
        self.server.submit(request, post)

    def _timer(self, key: Key) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._lease, self._end, key)

    def _end(self, key: Key) -> None:
        if (lease := self._calls.pop(key, None)) is not None:
            lease.timer.cancel()
            self.server.cancel(lease.request_id)


def _crossing(event: Event) -> Event:
    """As it can be told elsewhere: an error of others' may not be known there."""
    if isinstance(event, Failed) and not isinstance(event.error, AimError):
        return replace(event, error=RuntimeError(str(event.error)))
    return event
