"""Who asks for something and is not there: connections on which nothing comes or goes, each of
which holds a place among the server's, and work whose news nobody takes.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gradio.server_messages import ProcessCompletedMessage

LOOK = 5.0  # seconds between two looks


class Idle:
    """Closes connections of a uvicorn server that for so many seconds have begun no request, as
    slowly sent headers, which uvicorn itself waits for without an end, or taken nothing of what is
    sent to them.
    """

    def __init__(self, server: Any, seconds: float) -> None:
        self._server, self._seconds = server, seconds
        # of a connection its last request, the bytes that it has to take, and since when
        self._since: dict[Any, tuple[object, int, float]] = {}

    def look(self, now: float) -> int:
        """Close those that are idle; returns how many. ``now`` is in seconds."""
        closed, seen = 0, {}
        for one in list(self._server.server_state.connections):
            request, left = one.cycle, one.transport.get_write_buffer_size()
            before, had, since = self._since.get(one, (None, 0, now))
            busy = request is not None and not request.response_complete and not left
            moves = busy or before is not request or had != left
            seen[one] = request, left, now if moves else since
            if now - seen[one][2] > self._seconds:
                one.loop.call_soon_threadsafe(one.transport.abort)
                closed += 1
        self._since = seen
        return closed


class Unheard:
    """Ends the work of sessions who have left, or for so many seconds have taken none of the
    messages that there are for them in ``queue``, which is Gradio's: who never listens, or never
    reads. ``stop`` ends all that one does.
    """

    def __init__(self, queue: Any, seconds: float, stop: Callable[[str], object]) -> None:
        self._queue, self._seconds, self._stop = queue, seconds, stop
        self._since: dict[str, tuple[object, float]] = {}  # the next message, and since when

    def look(self, now: float) -> int:
        """End what nobody waits for; returns of how many sessions. ``now`` is in seconds."""
        ended, seen = 0, {}
        events = list(self._queue.event_ids_to_events.values())
        for session in {event.session_hash for event in events}:
            messages: Any = self._queue.pending_messages_per_session.get(session)
            first = None
            with suppress(AttributeError, IndexError):  # all are taken
                first = messages._queue[0]
            before, since = self._since.get(session, (None, now))
            since = since if first is not None and first is before else now
            seen[session] = first, since
            theirs = [event for event in events if event.session_hash == session]
            deaf = now - since > self._seconds
            if deaf or not any(event.alive for event in theirs):
                for event in theirs:
                    event.alive = False
                self._stop(session)
                ended += 1
            if deaf:
                self._queue.pending_messages_per_session[session] = self._over(theirs)
        self._since = seen
        return ended

    def _over(self, events: list[Any]) -> asyncio.Queue[ProcessCompletedMessage]:
        """What there is in place of all messages for who listens now."""
        messages: asyncio.Queue[ProcessCompletedMessage] = asyncio.Queue()
        why = f"Nobody listened for {self._seconds:g} s, so this was stopped; ask again."
        for event in events:
            told = ProcessCompletedMessage(output={"error": why}, success=False)
            told.event_id = event._id
            messages.put_nowait(told)
        return messages


def watch(server: Any, *looks: Callable[[float], object]) -> None:
    """Look every so often, from now until the server ends."""

    def run() -> None:
        while not server.should_exit:
            for look in looks:
                look(time.monotonic())
            time.sleep(LOOK)

    threading.Thread(target=run, name="idle", daemon=True).start()
