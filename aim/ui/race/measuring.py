"""Work against the clock on behalf of somebody at the page: in a thread, one at a time in this
process, stopped from anywhere.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from aim.bench.runs import Stopped
from aim.errors import QueueFull, let_go

WAITING = 8  # measurements in line at the most, each of some minutes
_LOOK = 0.1  # seconds between two looks at how far it is
# two measurements at once would disturb each other, whichever page asked for them: the first is on
# the track, the others wait
_line: list[Measurement] = []
_lock = threading.Lock()


class Measurement:
    """One piece of work and how far it is. All is for one thread, except ``stop``, which may be
    called from any thread at any time.
    """

    def __init__(self) -> None:
        self.text = "Starting"
        self.done = self.total = 0
        self.result: Any = None  # what the work returned
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Let the work end at its next look at ``stopped``."""
        self._stop.set()

    def say(self, text: str) -> None:
        """For the work: what it does now."""
        self.text = text

    def progress(self, done: int, total: int) -> None:
        """For the work: how many parts of it are done."""
        self.done, self.total = done, total

    def turn(self) -> Iterator[int]:
        """Stand in line until it is this one's turn; yields its place at every look, from 1.

        QueueFull where the line is too long, ``Stopped`` where it was stopped. Whoever calls this
        has to ``leave``.
        """
        with _lock:
            if len(_line) > WAITING:
                raise QueueFull(
                    f"{WAITING} others wait to measure something here. Press the button again in a "
                    "few minutes."
                )
            _line.append(self)
        while place := _line.index(self):
            yield place
            if self._stop.wait(_LOOK):
                raise Stopped

    def leave(self) -> None:
        """Out of the line; off the track as soon as the work ends."""
        self.stop()
        if self._thread is None and self in _line:
            _line.remove(self)

    def run(self, work: Callable[[Measurement], Any]) -> Iterator[None]:
        """Do ``work``, which is handed this; yields whenever there is something new to tell.

        Raises what it raised. Closing the generator stops the work.
        """
        self._thread = threading.Thread(
            target=self._work, args=(work,), name="measurement", daemon=True
        )
        self._thread.start()
        told = None
        try:
            while self._thread.is_alive():
                if (now := (self.text, self.done)) != told:
                    told = now
                    yield
                self._thread.join(_LOOK)
        finally:
            self.stop()
        if self._error is not None:
            raise self._error

    def _work(self, work: Callable[[Measurement], Any]) -> None:
        try:
            self.result = work(self)
        except BaseException as error:  # it belongs to whoever waits
            let_go(error)
            self._error = error
        finally:
            _line.remove(self)


def running() -> str:
    """What is being measured in this process, empty for nothing."""
    return next((measurement.text for measurement in _line[:1]), "")
