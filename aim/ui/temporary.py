"""Files that the page keeps for a while: all in one folder, whoever made them, swept by age, at the
start and at the end. What is on somebody's screen stays.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

VARIABLE = "GRADIO_TEMP_DIR"
PREFIX = "aim-page-"  # of a folder, then the number of its process
EMPTY = 60.0  # seconds that an empty folder is left to whoever made it
OFTEN = 600.0  # seconds between two sweeps, at the most


def folder() -> Path:
    """Where this process's pages keep files: GRADIO_TEMP_DIR, or a folder of its own, which is
    deleted at exit and, where a process could not do that, at the next one's start.
    """
    if given := os.environ.get(VARIABLE):
        return Path(given).resolve()
    parent = Path(tempfile.gettempdir()).resolve()
    for old in parent.glob(f"{PREFIX}*"):
        number = old.name.removeprefix(PREFIX)
        # of this number, too: in a container it is always the same
        if number.isdigit() and (int(number) == os.getpid() or not _lives(int(number))):
            shutil.rmtree(old, ignore_errors=True)
    own = parent / f"{PREFIX}{os.getpid()}"
    with suppress(OSError):  # of somebody else, or on a full disk: then Gradio says so
        own.mkdir(mode=0o700, exist_ok=True)
    os.environ[VARIABLE] = str(own)
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return own


def _lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def sweep(place: Path, seconds: float, shown: Collection[str] = ()) -> int:
    """Delete every file under ``place`` that is older and not among ``shown``, and folders that
    were left empty; returns how many files went.
    """
    now, gone = time.time(), 0
    for path, _, names in os.walk(place, topdown=False):
        for name in names:
            file = os.path.join(path, name)
            with suppress(OSError):  # somebody else was faster
                # when it was put here, and when it was last handed out
                if file not in shown and now - max(_times(file)) > seconds:
                    os.unlink(file)
                    gone += 1
        with suppress(OSError):  # it is not empty
            if path != str(place) and now - os.stat(path).st_mtime > min(EMPTY, seconds):
                os.rmdir(path)
    return gone


def _times(file: str) -> tuple[float, float]:
    found = os.lstat(file)
    return found.st_mtime, found.st_ctime


def files_in(value: Any, place: str) -> Iterator[str]:
    """Every file under ``place`` that is named in a value of any kind."""
    if isinstance(value, str):
        if value.startswith(place):
            yield value
        return
    if isinstance(value, dict):
        value = value.values()
    elif hasattr(value, "__dataclass_fields__"):
        value = vars(value).values()
    elif not isinstance(value, (list, tuple, set)):
        return
    for part in value:
        yield from files_in(part, place)


class Sweeper:
    """Sweeps every so often, from ``start`` to ``stop``; ``shown`` names the files that stay."""

    def __init__(self, place: Path, seconds: float, shown: Callable[[], Collection[str]]) -> None:
        self._place, self._seconds, self._shown = place, seconds, shown
        self._over = threading.Event()

    def start(self) -> None:
        """At once, and from then on."""
        threading.Thread(target=self._run, name="sweeper", daemon=True).start()

    def stop(self) -> None:
        """Not again."""
        self._over.set()

    def sweep(self) -> int:
        """Now; returns how many files went."""
        return sweep(self._place, self._seconds, self._shown())

    def _run(self) -> None:
        while True:
            self.sweep()
            if self._over.wait(min(OFTEN, self._seconds / 4)):
                return
