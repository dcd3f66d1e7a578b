"""The engine: requests go in, events come out, one model step at a time. It owns no thread; whoever
steps it drives it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

from aim.checks import whole
from aim.engine.graphs import Graphs
from aim.engine.memory import limit
from aim.engine.passes import OFF, Passes, Widths, widest
from aim.engine.requests import (
    LAST,
    Cancelled,
    Event,
    Failed,
    Finished,
    Preparing,
    Progress,
    Request,
    Started,
)
from aim.engine.runner import Come, Runner, unpack
from aim.engine.scheduler import Places, Running, Scheduler
from aim.engine.transfer import HostCopy
from aim.errors import GenerationError, InvalidInput, QueueFull
from aim.models.interface import Decoder
from aim.sampling import BROKEN


class Engine:
    """Runs up to ``max_requests`` requests at once on one model, with up to ``max_waiting`` more in
    line.

    ``submit`` and ``cancel`` may be called from any thread at any time; ``step`` and
    ``run`` by one at a time. In float32 a request's codes are the same alone and in any batch, in
    any order of arrival. On a GPU fewer than ``max_requests`` run where memory is short, with a
    line in the log, and the step is a graph unless ``captured`` is False. ``widths`` as of
    ``Passes``.
    """

    def __init__(
        self,
        model: Decoder,
        max_requests: int = 16,
        max_waiting: int = 64,
        captured: bool = True,
        widths: Widths = OFF,
    ) -> None:
        max_requests = whole("max_requests", max_requests, 1)
        max_waiting = whole("max_waiting", max_waiting, 0)
        self.model = model
        self._total: int = model.config.num_tokens
        # how many run at once
        self.max_requests = max_requests = limit(model, max_requests, widest(widths))
        self._runner = Runner(model, 2 * max_requests, captured, widest(widths))
        self.passes = Passes(self._runner, widths)
        self._scheduler = Scheduler(max_requests, max_waiting, self._runner.sizes)
        self._lock = threading.Lock()  # of the scheduler and of what follows
        # outside the lock: a garbage collector may cancel, inside any line of code
        self._cancelled: deque[int] = deque()
        self._places = Places()
        self._changed = False
        self._rows = 0  # of the batch
        # copies under way, in order: of each request in one, how many codes and passes it had
        self._copies: deque[tuple[HostCopy, list[tuple[Running, int, int]]]] = deque()
        self._leaving: dict[int, Running] = {}  # drawn, and out of the batch, but not told
        # the size of batch last told of, and to whom
        self._prepared: tuple[int, set[int]] = 0, set()

    @property
    def idle(self) -> bool:
        """Nothing runs, waits or is left to tell."""
        with self._lock:
            return self._scheduler.idle and not self._copies

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return len(self._scheduler.running)

    @property
    def waiting(self) -> int:
        """Requests in line."""
        return len(self._scheduler.waiting)

    @property
    def room(self) -> int:
        """Requests that could join the batch now, were they submitted."""
        return self.max_requests - self.running - self.waiting

    @property
    def graphs(self) -> Graphs:
        """The step for every size of batch; what was spent on preparing it."""
        return self._runner.graphs

    def submit(self, request: Request) -> None:
        """Put a request in line; it joins the batch at the next step that has room.

        InvalidInput as of ``Request.check`` and for an id that is in use, QueueFull if the line is
        full.
        """
        request.check(self.model.config)
        with self._lock:
            if request.id in self._scheduler or request.id in self._leaving:
                raise InvalidInput(f"request id {request.id} is already in use")
            self._scheduler.add(request)
            self._changed = True

    def cancel(self, request_id: int) -> None:
        """Let a request leave with the next step, which sends ``Cancelled``. Harmless for one that
        is gone; takes no lock.
        """
        self._cancelled.append(request_id)
        self._changed = True

    def step(self) -> list[Event]:
        """Who was cancelled leaves, who is next joins, and everyone in the batch gets one more
        code. Returns what happened.

        On a GPU this only orders the work: codes are told when they have come, some calls later. A
        call that is about to capture a graph returns ``Preparing`` first, and the next one
        captures; one that finds nothing to run waits for codes.
        """
        events: list[Event] = []
        running, graphs = self._scheduler.running, self.graphs  # only changed from here
        started, preparing = time.perf_counter(), graphs.seconds
        try:
            if self._changed or self._places.due:
                self._change(events)
            if running:
                if not graphs.ready(self._rows, self.passes.width(self._rows)) and (
                    notice := self._notice()
                ):
                    return events + notice
                told = self.passes.run(self._rows, running)
                if due := [one for one, step in told if one.reach(step) or step == self._total]:
                    self._tell(due)
        except Exception as error:  # of the model: all of its rows are lost, the line is not
            return events + [self._fail(entry, error) for entry in list(running.values())]
        seconds = time.perf_counter() - started - (graphs.seconds - preparing)
        for entry in (*running.values(), *self._leaving.values()):
            entry.seconds += seconds
        if self._copies:
            events += self._arrived(wait=self._scheduler.idle and not events)
        return events

    def run(self, requests: Iterable[Request] = ()) -> Iterator[Event]:
        """Submit ``requests``, each as soon as there is room in line, and step until nothing is
        left.

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
                self._leave(request_id)

    def drain(self) -> None:
        """Wait until the device has done all that was ordered, before the engine is let go."""
        self._runner.drain()

    def work(self) -> AbstractContextManager[object]:
        """Inside it the device's work is ordered behind the engine's own."""
        return self._runner.work()

    def _change(self, events: list[Event]) -> None:
        """Everything that happens between two steps: leave, join, move, tell places. Appends to
        ``events``.
        """
        self._changed = False
        while self._cancelled:
            request_id = self._cancelled.popleft()
            if self._leave(request_id):
                events.append(Cancelled(request_id))
        with self._lock:
            joined, line = self._scheduler.admit(), tuple(self._scheduler.waiting)
            events += self._places.news(self._scheduler.places())
        for i in range(0, len(joined), self._runner.together):
            events += self._join(joined[i : i + self._runner.together], line)
        with self._lock:
            moves = self._scheduler.compact()
        if moves:
            self._runner.move(moves)
        self._rows = self._scheduler.rows
        if self._scheduler.running:
            self._runner.arrange(self._scheduler.running.values())

    def _join(self, joined: Sequence[Running], line: Sequence[Request]) -> list[Event]:
        try:
            self._runner.admit(joined, line)
        except Exception as error:  # theirs alone
            return [self._fail(entry, error) for entry in joined]
        return [Started(entry.request.id) for entry in joined]

    def _notice(self) -> list[Event]:
        """What to tell before a step that takes seconds, if somebody was not told."""
        everybody = set(self._scheduler.running)
        size, told = self._prepared
        if size == self._rows and everybody <= told:
            return []
        self._prepared = self._rows, everybody
        what = f"{self._rows // 2} images at once" if self._rows > 2 else "one image"
        return [Preparing(one, f"Preparing the GPU for {what} …") for one in everybody]

    def _tell(self, told: Sequence[Running]) -> None:
        """Order copies of what these have so far; who has all is out of the batch, and its rows are
        free.
        """
        copy = self._runner.fetch(told, self.passes.width(self._rows))
        with self._lock:
            parts = [(entry, entry.told(self._total), entry.passes) for entry in told]
            self._copies.append((copy, parts))
            for entry in told:
                if entry.step == self._total:
                    self._leaving[entry.request.id] = entry
                    self._scheduler.remove(entry.request.id)
                    self._changed = True

    def _arrived(self, wait: bool) -> list[Event]:
        """What has arrived, as events, in order; with ``wait``, the first of it at the least."""
        events: list[Event] = []
        while self._copies:
            copy, told = self._copies[0]
            try:
                if wait:
                    started, wait = time.perf_counter(), False
                    copy.wait()
                    for entry, *_ in told:
                        entry.seconds += time.perf_counter() - started
                elif not copy.done():
                    break
                arrays = copy.arrays()
            except Exception as error:  # the device is in trouble
                self._copies.popleft()
                events += [self._fail(entry, error) for entry, *_ in told if not entry.gone]
                continue
            self._copies.popleft()
            for entry, what in unpack(arrays, told, self._total):
                if not entry.gone:
                    events.append(self._report(entry, what))
        return events

    def _report(self, entry: Running, what: Come) -> Event:
        """What to tell of a request of which this has come; one that is done or broken leaves."""
        passes, codes, notes, guesses = what
        request_id, step = entry.request.id, len(codes)
        if codes.min() == BROKEN:
            at = int((codes == BROKEN).argmax())
            text = f"the model's output was not finite at code {at}; its weights may be damaged"
            return self._fail(entry, GenerationError(text))
        if step < self._total:
            more = entry.seconds, notes, passes, guesses
            return Progress(request_id, step, self._total, codes, *more)
        self._leave(request_id)
        return Finished(request_id, codes, entry.seconds, notes, passes)

    def _fail(self, entry: Running, error: Exception) -> Failed:
        self._leave(entry.request.id)
        return Failed(entry.request.id, error)

    def _leave(self, request_id: int) -> bool:
        """Take a request out wherever it is, and tell nothing more of it; False if it is not
        here.
        """
        with self._lock:
            entry = self._scheduler.running.get(request_id) or self._leaving.pop(request_id, None)
            here = self._scheduler.remove(request_id) or entry is not None
            if entry is not None:
                entry.gone = True
                self._copies = deque(
                    one for one in self._copies if not all(other.gone for other, *_ in one[1])
                )
            self._changed |= here
            return here
