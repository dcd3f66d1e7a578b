"""The engine: requests go in, events come out, one model step at a time. It owns no thread; whoever steps it drives it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from aim.engine.request import LAST, Cancelled, Event, Failed, Finished, Progress, Queued, Request, Started
from aim.engine.runner import BROKEN, Runner
from aim.engine.scheduler import Running, Scheduler
from aim.errors import GenerationError, InvalidInput, QueueFull


class Engine:
    """Runs up to ``max_requests`` requests at once on one model, with up to ``max_waiting`` more in line.

    ``submit``, ``cancel`` and ``place`` may be called from any thread at any time; ``step`` and ``run`` by one at a time.
    In float32 a request's codes are the same alone and in any batch, in any order of arrival.
    """

    def __init__(self, model: Any, max_requests: int = 16, max_waiting: int = 64) -> None:
        if max_requests < 1 or max_waiting < 0:
            raise InvalidInput(f"max_requests is {max_requests} and max_waiting {max_waiting}; at least 1 and 0 are needed")
        self.model = model
        self._total: int = model.config.num_tokens
        self._runner = Runner(model, 2 * max_requests)
        self._scheduler = Scheduler(max_requests, max_waiting, self._runner.multiple)
        self._lock = threading.Lock()  # of the scheduler and of what follows
        self._cancelled: deque[int] = deque()  # outside the lock: a garbage collector may cancel, inside any line of code
        self._places: dict[int, int] = {}  # as last told
        self._changed = False

    @property
    def max_requests(self) -> int:
        """How many run at once."""
        return self._scheduler.max_requests

    @property
    def idle(self) -> bool:
        """Nothing runs, waits or is left to tell."""
        with self._lock:
            return self._scheduler.idle

    def submit(self, request: Request) -> None:
        """Put a request in line; it joins the batch at the next step that has room.

        InvalidInput for a class row that the model does not have or an id that is in use, QueueFull if the line is full.
        """
        rows = self.model.config.num_classes
        if not isinstance(request.label, (int, np.integer)) or not 0 <= request.label < rows:
            raise InvalidInput(f"class row is {request.label!r}; it must be a whole number in [0, {rows - 1}]")
        with self._lock:
            if request.id in self._scheduler:
                raise InvalidInput(f"request id {request.id} is already in use")
            self._scheduler.add(request)
            self._changed = True

    def cancel(self, request_id: int) -> None:
        """Let a request leave with the next step, which sends ``Cancelled``. Harmless for one that is gone; takes no lock."""
        self._cancelled.append(request_id)
        self._changed = True

    def place(self, request_id: int) -> int:
        """Place in line, 1 is next; 0 for a request that runs, starts with the next step, or is gone."""
        with self._lock:
            return self._scheduler.place(request_id)

    def step(self) -> list[Event]:
        """Who was cancelled leaves, who is next joins, and everyone in the batch gets one more code. Returns what happened."""
        events: list[Event] = []
        running = self._scheduler.running  # only changed from here
        started = time.perf_counter()
        try:
            if self._changed:
                self._change(events)
            if not running:
                return events
            self._runner.step()
            for entry in running.values():
                entry.step += 1
            told = [entry for entry in running.values() if entry.due or entry.step == self._total]
            copies = [(entry, self._runner.codes(entry.slots[0], entry.step)) for entry in told]
        except Exception as error:  # whatever the model raised: all of its rows are lost, the line is not
            return events + [self._fail(entry, error) for entry in list(running.values())]
        seconds = time.perf_counter() - started
        for entry in running.values():
            entry.seconds += seconds
        return events + [self._report(entry, codes) for entry, codes in copies]

    def run(self, requests: Iterable[Request] = ()) -> Iterator[Event]:
        """Submit ``requests``, each as soon as there is room in line, and step until nothing is left.

        A plain generator: closing it cancels what it submitted and is not done.
        """
        mine: set[int] = set()
        todo = list(requests)[::-1]
        try:
            while todo or not self.idle:
                while todo:
                    try:
                        self.submit(todo[-1])
                    except QueueFull:
                        break
                    mine.add(todo.pop().id)
                for event in self.step():
                    if isinstance(event, LAST):
                        mine.discard(event.request_id)
                    yield event
        finally:
            for request_id in mine:
                self._remove(request_id)

    def _change(self, events: list[Event]) -> None:
        """Everything that happens between two steps: leave, join, move, tell places. Appends to ``events``."""
        with self._lock:
            self._changed = False
            while self._cancelled:
                request_id = self._cancelled.popleft()
                if self._scheduler.remove(request_id):
                    events.append(Cancelled(request_id))
            joined = self._scheduler.admit()
            places = {request.id: place for request, place in self._scheduler.places() if place}
        events += [Queued(request_id, place) for request_id, place in places.items() if self._places.get(request_id) != place]
        self._places = places
        for entry in joined:
            try:
                self._runner.admit(entry.slots, entry.request.label)
                events.append(Started(entry.request.id))
            except Exception as error:  # this one's alone
                events.append(self._fail(entry, error))
        with self._lock:
            moves = self._scheduler.compact()
        if moves:
            self._runner.move(moves)
        if self._scheduler.running:
            self._runner.arrange(self._scheduler.running.values(), self._scheduler.rows)

    def _report(self, entry: Running, codes: np.ndarray) -> Event:
        """What to tell of a request that has ``codes`` so far; one that is done or broken leaves."""
        request_id = entry.request.id
        if codes.min() == BROKEN:
            at = int((codes == BROKEN).argmax())
            return self._fail(entry, GenerationError(f"the model's output was not finite at code {at}; its weights may be damaged"))
        if entry.step < self._total:
            return Progress(request_id, entry.step, self._total, codes, entry.seconds)
        self._remove(request_id)
        return Finished(request_id, codes, entry.seconds)

    def _fail(self, entry: Running, error: Exception) -> Failed:
        self._remove(entry.request.id)
        return Failed(entry.request.id, error)

    def _remove(self, request_id: int) -> None:
        with self._lock:
            self._scheduler.remove(request_id)
            self._changed = True
