"""What a command is doing and how much of it is done: one bar on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

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


class Bar:
    """A text, and a bar that only pulses until its total is known."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def say(self, text: str) -> None:
        """Something else is being done now, and nothing of it yet."""
        self._progress.reset(self._task, description=text, total=None)

    def measuring(self, text: str) -> None:
        """So much for ``text``: it is measured now."""
        self.say(f"Measuring: {text}")

    def move(self, done: float, total: float, text: str | None = None) -> None:
        """So much is done; ``text`` replaces what was said, None leaves it."""
        self._progress.update(self._task, completed=done, total=total, description=text)


@contextmanager
def progress(text: str = "Loading the model") -> Iterator[Bar]:
    """A bar, gone at the end; silent where standard error is no terminal, and in all processes but
    the first.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description} ..."),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal or Settings.from_env().rank > 0,
        redirect_stdout=sys.stdout.isatty(),  # what is piped must not end up on standard error
    ) as shown:
        yield Bar(shown, shown.add_task(text, total=None))
