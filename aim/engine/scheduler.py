"""Who runs where and who waits. Plain Python: two collections and a set of slots; no tensors, no threads."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

from aim.engine.request import Request
from aim.errors import QueueFull


@dataclass
class Running:
    """A request in the batch. Row i of the batch is slot i; the first slot is the conditional row."""

    request: Request
    slots: list[int]
    step: int = 0  # codes drawn
    seconds: float = 0.0  # model time so far

    @property
    def due(self) -> bool:
        """Whether a Progress event is due now."""
        every = self.request.preview_every
        return every > 0 and self.step % every == 0


class Scheduler:
    """At most ``max_requests`` run, at most ``max_waiting`` more wait in line, first come, first served.

    ``multiple`` is what the number of rows is rounded up to; rows move down when that makes the batch smaller.
    """

    def __init__(self, max_requests: int, max_waiting: int, multiple: int) -> None:
        self.max_requests, self.max_waiting, self.multiple = max_requests, max_waiting, multiple
        self.waiting: deque[Request] = deque()
        self.running: dict[int, Running] = {}
        self._free = list(range(2 * max_requests))  # a heap: the lowest slot is given out first

    def __contains__(self, request_id: int) -> bool:
        return request_id in self.running or any(request.id == request_id for request in self.waiting)

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return not self.running and not self.waiting

    @property
    def used(self) -> int:
        """Slots taken."""
        return 2 * self.max_requests - len(self._free)

    @property
    def rows(self) -> int:
        """Rows of the batch: up to the highest slot taken, rounded up."""
        top = max((max(entry.slots) for entry in self.running.values()), default=-1)
        return self._rounded(top + 1)

    def add(self, request: Request) -> None:
        """Put a request at the end of the line; QueueFull if it is too long."""
        vacant = self.max_requests - len(self.running)
        if len(self.waiting) >= vacant + self.max_waiting:
            raise QueueFull(f"{len(self.running)} images are being drawn and {self.max_waiting} wait; try again in a moment")
        self.waiting.append(request)

    def place(self, request_id: int) -> int:
        """Place in line, 1 is next; 0 for one that runs, starts with the next step, or is gone."""
        return next((place for request, place in self.places() if request.id == request_id), 0)

    def places(self) -> list[tuple[Request, int]]:
        """Everyone in line with their place; 0 starts with the next step."""
        vacant = self.max_requests - len(self.running)
        return [(request, max(0, i + 1 - vacant)) for i, request in enumerate(self.waiting)]

    def admit(self) -> list[Running]:
        """Move the first in line into the batch while there is room; returns those."""
        joined = []
        while self.waiting and len(self.running) < self.max_requests:
            request = self.waiting.popleft()
            entry = Running(request, [heapq.heappop(self._free) for _ in range(request.rows)])
            self.running[request.id] = entry
            joined.append(entry)
        return joined

    def remove(self, request_id: int) -> bool:
        """Take a request out wherever it is; False if it is not here."""
        entry = self.running.pop(request_id, None)
        if entry is not None:
            for slot in entry.slots:
                heapq.heappush(self._free, slot)
            return True
        for request in self.waiting:
            if request.id == request_id:
                self.waiting.remove(request)
                return True
        return False

    def compact(self) -> list[tuple[int, int]]:
        """Move the highest rows into the lowest free slots if that makes the batch smaller: (from, to) for each row moved."""
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

    def _rounded(self, rows: int) -> int:
        return -(-rows // self.multiple) * self.multiple
