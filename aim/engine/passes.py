"""Passes of the model, and how far each request is after them, of which the host may hear late."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TypeAlias

from aim.engine.runner import Runner
from aim.engine.scheduler import Running
from aim.engine.transfer import HostCopy
from aim.ops.linear import MOST

# (rows, items): of up to so many rows a pass reads so many items each, of more one. Ascending rows
Widths: TypeAlias = tuple[tuple[int, int], ...]
OFF: Widths = ()
# passes whose end the host has not heard of: enough to keep a GPU busy, and no more, as those who
# wait join behind them
UNHEARD = 2


def up_to(items: int) -> Widths:
    """As many items as ``items``, a power of two, in products of so few rows that a row's bits are
    the same in all of them.
    """
    return tuple((MOST >> i, 1 << i) for i in range(items.bit_length() - 1, 0, -1))


def widest(widths: Widths) -> int:
    """The most items that a pass reads of a row."""
    return max((items for _, items in widths), default=1)


class Passes:
    """One item of every row in a pass, or as many as ``widths`` says, of which the device says how
    many codes they settled (``aim.ahead``).
    """

    def __init__(self, runner: Runner, widths: Widths = OFF) -> None:
        self._runner, self._widths = runner, widths
        self.count = 0  # ordered so far
        # not taken up yet: how many codes each slot has, and who was where
        self._late: deque[tuple[HostCopy, list[tuple[Running, int]]]] = deque()

    def width(self, rows: int) -> int:
        """Items of a row in a pass of ``rows`` rows."""
        return next((items for most, items in self._widths if rows <= most), 1)

    def run(self, rows: int, running: Mapping[int, Running]) -> list[tuple[Running, int]]:
        """Order a pass of ``rows`` rows for ``running``, by id, unless all of them turn out to be
        done -> who got further, as far as it is known, and how many codes it has. A pass of one
        item, which knows nobody that is done, waits until those have left.
        """
        width = self.width(rows)
        reached = {one: entry.step for one, entry in running.items()}
        self._hear(running, reached, UNHEARD - 1 if width > 1 else 0)
        drawing = [step < self._runner.total for step in reached.values()]
        if any(drawing) if width > 1 else all(drawing):
            self._runner.step(rows, width)
            self.count += 1
            if width > 1:
                here = [(entry, entry.slots[0]) for entry in running.values()]
                self._late.append((self._runner.places(), here))
                self._hear(running, reached, UNHEARD)
            else:  # nobody need say
                for one, entry in running.items():
                    reached[one] += 1
                    entry.passes += 1
        return [
            (entry, reached[one]) for one, entry in running.items() if reached[one] > entry.step
        ]

    def _hear(self, running: Mapping[int, Running], reached: dict[int, int], most: int) -> None:
        """Take up what has come of passes, and wait until no more than ``most`` are left."""
        while self._late:
            copy, there = self._late[0]
            if len(self._late) > most:
                copy.wait()
            elif not copy.done():
                break
            self._late.popleft()
            [places] = copy.arrays()
            for entry, slot in there:
                one, step = entry.request.id, int(places[slot])
                if running.get(one) is entry and step > reached[one]:
                    reached[one] = step
                    entry.passes += 1
