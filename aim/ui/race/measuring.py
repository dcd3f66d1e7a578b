"""Work against the clock on behalf of somebody at the page: in a thread, one at a time in this
process, stopped from anywhere.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from aim.errors import QueueFull

_LOOK = 0.1  # seconds between two looks at how far it is
# two measurements at once would disturb each other, whichever page asked for them
_track = threading.Lock()
_on_track: list[Measurement] = []  # at most one


class Measurement:
    """One piece of work and how far it is. ``run`` is for one thread; ``stop`` may be called from
    any thread at any time.
    """

    def __init__(self) -> None:
        self.text = "Starting"
        self.done = self.total = 0
        self.result: Any = None  # what the work returned
        self._stop = threading.Event()
        self._error: BaseException | None = None

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

    def run(self, work: Callable[[Measurement], Any]) -> Iterator[None]:
        """Do ``work``, which is handed this; yields whenever there is something new to tell.

        Raises what it raised, and QueueFull instead of beginning a second measurement. Closing the
        generator stops the work.
        """
        if not _track.acquire(blocking=False):
            refuse_a_second()
            raise QueueFull(
                "Another measurement has just begun here. Press the button again in a minute."
            )
        _on_track.append(self)
        thread = threading.Thread(target=self._work, args=(work,), name="measurement", daemon=True)
        thread.start()
        told = None
        try:
            while thread.is_alive():
                if (now := (self.text, self.done)) != told:
                    told = now
                    yield
                thread.join(_LOOK)
        finally:
            self.stop()
        if self._error is not None:
            raise self._error

    def _work(self, work: Callable[[Measurement], Any]) -> None:
        try:
            self.result = work(self)
        except BaseException as error:  # it belongs to whoever waits
            self._error = error
        finally:
            _on_track.remove(self)
            _track.release()


def running() -> str:
    """What is being measured in this process, empty for nothing."""
    return next((measurement.text for measurement in list(_on_track)), "")


def refuse_a_second() -> None:
    """QueueFull if something is being measured in this process: better said before a model is
    loaded for it.
    """
    if text := running():
        raise QueueFull(
            f"Something is being measured here already ({text}); two at once would disturb each "
            "other's times. "
            "Press the button again in a minute."
        )
