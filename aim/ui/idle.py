"""Connections on which nothing comes: closed, as each holds a place among the server's."""

from __future__ import annotations

import threading
import time
from typing import Any

LOOK = 5.0  # seconds between two looks


class Idle:
    """Closes connections of a uvicorn server that have begun no request for so many seconds:
    slowly sent headers, which uvicorn itself waits for without an end.
    """

    def __init__(self, server: Any, seconds: float) -> None:
        self._server, self._seconds = server, seconds
        self._since: dict[Any, tuple[object, float]] = {}  # connection: its last request, and when

    def start(self) -> None:
        """Look every so often, until the server ends."""
        threading.Thread(target=self._run, name="idle", daemon=True).start()

    def look(self, now: float) -> int:
        """Close those that are idle; returns how many. ``now`` is in seconds."""
        closed, seen = 0, {}
        for one in list(self._server.server_state.connections):
            request = one.cycle
            before, since = self._since.get(one, (None, now))
            busy = request is not None and not request.response_complete
            seen[one] = request, now if busy or before is not request else since
            if now - seen[one][1] > self._seconds:
                one.loop.call_soon_threadsafe(one.transport.abort)
                closed += 1
        self._since = seen
        return closed

    def _run(self) -> None:
        while not self._server.should_exit:
            self.look(time.monotonic())
            time.sleep(LOOK)
