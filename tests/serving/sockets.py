"""Replicas behind sockets of this machine: a fleet with nothing but the standard library, for tests
of what is the same for every fleet. Each call has a connection of its own, and ends with it.
"""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

from aim.engine import Event, Report, Server
from aim.engine.requests import LAST
from aim.serving.fleet import Beat, Call
from aim.serving.replica import LEASE, Replica

_LOOK = 0.02  # seconds between two looks for a replica


class Sockets:
    """A fleet of the replicas that listen in ``folder``, each call to the one that has fewest,
    and among those had the fewest.
    ``deaf``: that a call was cancelled does not arrive; ``silent``: no beat does.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open, self._had = Counter[Path](), Counter[Path]()
        self._kept: list[asyncio.StreamWriter] = []
        self.deaf = self.silent = self.closed = False

    async def draw(self, call: Call) -> AsyncGenerator[Event, None]:
        while not (paths := sorted(self._folder.iterdir(), key=self._rank)):
            await asyncio.sleep(_LOOK)
        path = paths[0]
        self._open[path] += 1
        self._had[path] += 1
        try:
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                await _write(writer, call)
                while True:
                    yield (event := await _read(reader))
                    if isinstance(event, LAST):
                        return
            finally:
                if self.deaf:
                    self._kept.append(writer)  # or it would be closed when nobody holds it
                else:
                    writer.close()
        finally:
            self._open[path] -= 1

    async def beat(self, beat: Beat) -> list[Report]:
        paths = [] if self.silent else sorted(self._folder.iterdir())
        reports = await asyncio.gather(*(_ask(path, beat) for path in paths))
        return [report for report in reports if report is not None]

    def close(self) -> None:
        self.closed = True

    def _rank(self, path: Path) -> tuple[int, int, str]:
        return self._open[path], self._had[path], path.name


class Host:
    """A replica in a thread of this process."""

    def __init__(
        self, path: Path, server: Server, version: str = "1", lease: float = LEASE
    ) -> None:
        self.server, self._path = server, path
        self.replica = Replica(path.name, server, version, lease=lease)
        self._loop: Any = None
        listening = threading.Event()

        async def main() -> None:
            self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
            listener = await asyncio.start_unix_server(_answering(self.replica), path)
            listening.set()
            await self._over.wait()
            listener.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        self._thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
        self._thread.start()
        assert listening.wait(10)

    def end(self) -> None:
        """Everything that it draws is lost, as nobody hears of it."""
        self._path.unlink(missing_ok=True)
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self.server.close()


def host(path: Path, make: Callable[[], Server]) -> None:
    """A replica in a process of its own, for as long as that lives."""

    async def main() -> None:
        replica = Replica(path.name, make(), "1")
        async with await asyncio.start_unix_server(_answering(replica), path) as listener:
            await listener.serve_forever()

    asyncio.run(main())


def _answering(replica: Replica) -> Callable[..., Any]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def talk() -> None:
            message = await _read(reader)
            if isinstance(message, Beat):
                await _write(writer, replica.beat(message))
                return
            left = asyncio.create_task(reader.read(1))
            left.add_done_callback(lambda _: talking.cancel())
            async with aclosing(replica.draw(message)) as events:
                async for event in events:
                    await _write(writer, event)

        talking = asyncio.create_task(talk())
        with suppress(OSError, EOFError, asyncio.CancelledError):
            await talking
        writer.close()

    return answer


async def _ask(path: Path, message: object) -> Any:
    with suppress(OSError, EOFError):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            await _write(writer, message)
            return await _read(reader)
        finally:
            writer.close()
    return None


async def _write(writer: asyncio.StreamWriter, message: object) -> None:
    data = pickle.dumps(message)
    writer.write(len(data).to_bytes(4, "little") + data)
    await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Any:
    size = int.from_bytes(await reader.readexactly(4), "little")
    return pickle.loads(await reader.readexactly(size))
