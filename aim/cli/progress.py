"""What a command is doing and how much of it is done: one bar on standard error, or a line now and
then where that is no terminal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from aim.settings import Settings

PAUSE = 30.0  # seconds between lines at the least; later a tenth of what has passed


class Lines:
    """Lines in place of a bar, fewer and fewer; none for what is soon done."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._since: tuple[float, float] | None = None  # a moment, and what was done then

    def begin(self) -> None:
        """Something else is being done now."""
        self._since = None

    def show(self, text: str, share: float = 0.0) -> None:
        """``share`` of it is done, 0 where nobody knows."""
        now = time.monotonic()
        began, before = self._since = self._since or (now, share)
        if now - self._last < max(PAUSE, (self._last - self._start) / 10):
            return
        self._last = now
        known = f" {share:.0%}" if share else ""
        if share > before:
            left = (now - began) * (1 - share) / (share - before)
            known += f", {timedelta(seconds=round(left))} left"
        print(f"{text} ...{known}", file=sys.stderr, flush=True)


class Bar:
    """A text, and a bar that only pulses until its total is known."""

    def __init__(self, progress: Progress, task: TaskID, lines: Lines | None) -> None:
        self._progress, self._task, self._lines = progress, task, lines

    def say(self, text: str) -> None:
        """Something else is being done now, and nothing of it yet."""
        self._progress.reset(self._task, description=text, total=None)
        if self._lines:
            self._lines.show(text)
            self._lines.begin()

    def measuring(self, text: str) -> None:
        """So much for ``text``: it is measured now."""
        self.say(f"Measuring: {text}")

    def move(self, done: float, total: float, text: str | None = None) -> None:
        """So much is done; ``text`` replaces what was said, None leaves it."""
        self._progress.update(self._task, completed=done, total=total, description=text)
        if self._lines:
            said = self._progress.tasks[0].description
            self._lines.show(said, done / total if total else 0.0)


@contextmanager
def progress(text: str = "Loading the model") -> Iterator[Bar]:
    """A bar, gone at the end; lines where standard error is no terminal; nothing in all processes
    but the first.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description} ..."),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    first = Settings.from_env().rank == 0
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal or not first,
        redirect_stdout=sys.stdout.isatty(),  # what is piped must not end up on standard error
    ) as shown:
        lines = Lines() if first and not console.is_terminal else None
        yield Bar(shown, shown.add_task(text, total=None), lines)
