"""Passes of the model, and how far each request is after them, of which the host may hear late."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from aim.engine.runner import Runner
from aim.engine.scheduler import Running
from aim.engine.transfer import HostCopy
from aim.ops.linear import MOST


class Passes:
    """One item of every row in a pass, or with ``widest`` of 2, 4, 8 or 16 up to so many, of which
    the device says how many codes they settled (``aim.ahead``).
    """

    def __init__(self, runner: Runner, widest: int = 1) -> None:
        self._runner, self._widest = runner, widest
        # not taken up yet: how many codes each slot has, and who was where
        self._late: deque[tuple[HostCopy, list[tuple[Running, int]]]] = deque()

    def width(self, rows: int) -> int:
        """Items of a row in a pass of ``rows`` rows: as many as there may be, in products of so few
        that a row's bits are the same in all of them.
        """
        width = self._widest
        while width > 1 and rows * width > MOST:
            width //= 2
        return width

    def run(self, rows: int, running: Mapping[int, Running]) -> list[tuple[Running, int]]:
        """Order a pass of ``rows`` rows for ``running``, by id -> who got further, as far as it is
        known, and how many codes it has.
        """
        self._runner.step(rows, self.width(rows))
        if self._widest == 1:
            for entry in running.values():
                entry.passes += 1
            return [(entry, entry.step + 1) for entry in running.values()]
        here = [(entry, entry.slots[0]) for entry in running.values()]
        self._late.append((self._runner.places(), here))
        further: dict[int, tuple[Running, int]] = {}
        while self._late and self._late[0][0].done():
            copy, there = self._late.popleft()
            [places] = copy.arrays()
            for entry, slot in there:
                request_id, step = entry.request.id, int(places[slot])
                _, before = further.get(request_id, (entry, entry.step))
                if running.get(request_id) is entry and step > before:
                    further[request_id] = entry, step
                    entry.passes += 1
        return list(further.values())
