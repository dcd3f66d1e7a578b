"""Who waits, who is next and who runs where. Plain Python: two collections and a set of slots; no
tensors, no threads.
"""

from __future__ import annotations

import heapq
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aim.engine.requests import Queued, Request
from aim.errors import QueueFull

AGAIN = 1.0  # seconds between two places that one is told
PLACES_A_SECOND = 30  # that all together are told: each that a page shows costs some 5 ms


@dataclass
class Running:
    """A request in the batch. Row i of the batch is slot i; the first slot is the conditional
    row.
    """

    request: Request
    slots: list[int]
    step: int = 0  # codes drawn or given
    seconds: float = 0.0  # model time so far
    gone: bool = False  # nothing more is told of it
    passes: int = 0  # of the model so far
    arranged: bool = False  # the device knows where it is

    def reach(self, step: int) -> bool:
        """Take up that there are ``step`` codes; whether a Progress event is due now."""
        every, before, self.step = self.request.preview_every, self.step, step
        return every > 0 and step // every > before // every

    def told(self, total: int) -> int:
        """How many codes the event that is due tells of: all ``total``, or a multiple of what was
        asked for.
        """
        return self.step - (self.step < total and self.step % self.request.preview_every)


class Turns:
    """At most ``max_requests`` run, at most ``max_waiting`` more wait in line. First come, first
    served, but whose owner has fewer in the batch goes before others: who asks for many gives way
    to who waits for a first picture.

    ``max_requests`` may change, but for a Scheduler's; who runs goes on. A request that asks to be
    alone is admitted when nothing runs, and nobody while it runs.
    """

    def __init__(self, max_requests: int, max_waiting: int) -> None:
        self.max_requests, self.max_waiting = max_requests, max_waiting
        self.waiting: deque[Request] = deque()
        self.running: dict[int, Running] = {}
        self._ids: set[int] = set()  # of those that wait
        # how many of an owner's joined, since the owner had none here
        self._had = Counter[tuple[str, ...]]()

    def __contains__(self, request_id: int) -> bool:
        return request_id in self.running or request_id in self._ids

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self.running and not self.waiting

    def add(self, request: Request) -> None:
        """Put a request at the end of the line; QueueFull if it is too long."""
        if (
            len(self.waiting) >= self.max_waiting
            and len(self.waiting) + 1 - self._ready(self._line([*self.waiting, request]))
            > self.max_waiting
        ):
            raise QueueFull(
                f"{len(self.running)} images are being drawn and {self.max_waiting} wait; try "
                "again in a moment"
            )
        self.waiting.append(request)
        self._ids.add(request.id)

    def places(self) -> list[tuple[Request, int]]:
        """Everyone in line with their place; 0 starts with the next step."""
        line = self._line(self.waiting)
        ready = self._ready(line)
        return [(request, max(0, i + 1 - ready)) for i, request in enumerate(line)]

    def admit(self) -> list[Running]:
        """Move the first in line into the batch while there is room; returns those."""
        joined = []
        line = self._line(self.waiting)
        for request in line[: self._ready(line)]:
            self.waiting.remove(request)
            self._ids.remove(request.id)
            entry = Running(request, self._slots(request), len(request.prefix))
            self.running[request.id] = entry
            joined.append(entry)
            self._had[request.owner] += 1
        here = {entry.request.owner for entry in self.running.values()}
        here |= {request.owner for request in self.waiting}
        for owner in self._had.keys() - here:
            del self._had[owner]
        return joined

    def remove(self, request_id: int) -> bool:
        """Take a request out wherever it is; False if it is not here."""
        if self.running.pop(request_id, None) is not None:
            return True
        if request_id not in self._ids:
            return False
        self._ids.remove(request_id)
        self.waiting.remove(next(request for request in self.waiting if request.id == request_id))
        return True

    def _slots(self, request: Request) -> list[int]:
        """Where a request that joins will be; here nobody is anywhere."""
        return []

    def _line(self, waiting: Iterable[Request]) -> list[Request]:
        """Those who wait in the order in which they will join. Nobody passes one who asks to be
        alone and came before.
        """
        rest = list(waiting)
        if len({request.owner for request in rest}) < 2:
            return rest
        inside, had = Counter[tuple[str, ...]](), self._had.copy()
        for entry in self.running.values():
            inside.update(_kin(entry.request))

        def due(i: int) -> list[int]:
            own, *shared = _kin(rest[i])
            return [inside[own], had[own], *(inside[kin] for kin in shared), i]

        line = []
        while rest:
            alone = next((i for i, request in enumerate(rest) if request.alone), len(rest))
            line.append(rest.pop(min(range(max(1, alone)), key=due)))
            inside.update(_kin(line[-1]))
            had[line[-1].owner] += 1
        return line

    def _ready(self, line: Iterable[Request]) -> int:
        """How many of the first in ``line`` can join the batch now."""
        inside = len(self.running)
        closed = any(entry.request.alone for entry in self.running.values())
        for request in line:
            if inside >= self.max_requests or closed or (inside and request.alone):
                break
            inside, closed = inside + 1, request.alone
        return inside - len(self.running)


class Places:
    """What those in line were told of it: at once when they come, then at most every ``AGAIN``
    seconds, and less often in a long line.
    """

    def __init__(self) -> None:
        self._now: dict[int, int] = {}  # of each request
        self._told: dict[int, int] = {}
        self._next = 0.0  # when they are told again

    def __len__(self) -> int:
        return len(self._told)

    @property
    def due(self) -> bool:
        """Whether somebody is at another place than was told, and may be told now."""
        return self._told != self._now and time.monotonic() >= self._next

    def news(self, line: Iterable[tuple[Request, int]]) -> list[Queued]:
        """What to tell now, of a line as of ``Turns.places``."""
        before, self._now = self._told, {request.id: place for request, place in line if place}
        if self.due:
            self._told = self._now
            self._next = time.monotonic() + max(AGAIN, len(self._now) / PLACES_A_SECOND)
        else:
            self._told = {one: before.get(one, place) for one, place in self._now.items()}
        return [Queued(one, at) for one, at in self._told.items() if before.get(one) != at]


class Scheduler(Turns):
    """Turns with a place for everyone: row i of the batch is slot i.

    ``sizes`` are the numbers of rows that a batch may have, ascending, the last one enough for all;
    rows move down when that makes the batch smaller.
    """

    def __init__(self, max_requests: int, max_waiting: int, sizes: Sequence[int]) -> None:
        assert sizes[-1] >= 2 * max_requests
        super().__init__(max_requests, max_waiting)
        self.sizes = sizes
        self._free = list(range(2 * max_requests))  # a heap: the lowest slot is given out first

    @property
    def used(self) -> int:
        """Slots taken."""
        return 2 * self.max_requests - len(self._free)

    @property
    def rows(self) -> int:
        """Rows of the batch: up to the highest slot taken, rounded up."""
        top = max((max(entry.slots) for entry in self.running.values()), default=-1)
        return self._rounded(top + 1)

    def remove(self, request_id: int) -> bool:
        """Take a request out wherever it is; False if it is not here."""
        entry = self.running.get(request_id)
        for slot in entry.slots if entry else ():
            heapq.heappush(self._free, slot)
        return super().remove(request_id)

    def compact(self) -> list[tuple[int, int]]:
        """Move the highest rows into the lowest free slots if that makes the batch smaller: (from,
        to) for each row moved.
        """
        if self.rows == self._rounded(self.used):
            return []
        moves = []
        owners = {slot: entry for entry in self.running.values() for slot in entry.slots}
        for slot in sorted(owners, reverse=True):
            if slot < self._free[0]:
                break
            target = heapq.heapreplace(self._free, slot)
            entry = owners[slot]
            entry.slots[entry.slots.index(slot)] = target
            moves.append((slot, target))
        return moves

    def _slots(self, request: Request) -> list[int]:
        return [heapq.heappop(self._free) for _ in range(request.rows)]

    def _rounded(self, rows: int) -> int:
        return self.sizes[bisect_left(self.sizes, rows)] if rows else 0


def _kin(request: Request) -> list[tuple[str, ...]]:
    """Whose a request is: of one visitor first, then of more and more."""
    return [request.owner[:n] for n in range(len(request.owner), 0, -1)] or [()]
