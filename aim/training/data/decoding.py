"""Many images of a source as pixels: decoded ahead by threads or processes, those that cannot be
read named, counted and left out.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np

from aim.errors import InvalidInput
from aim.images.read import open_square
from aim.settings import Settings
from aim.training.data.sources import Images

MOST_BAD = 100  # images in a row that cannot be read: then it is not the images
DEPTH = 128  # images that threads are ahead
MANY = 5_000  # images, for which processes are worth being started
MOST_WORKERS = 16
AT_ONCE = 8  # images that a process hands over together

log = logging.getLogger("aim")
T = TypeVar("T")
R = TypeVar("R")


class Decoded(NamedTuple):
    """One image that could be read."""

    item: int  # its number in the source
    row: int  # of its class
    pixels: np.ndarray  # (S, S, 3) uint8


class Reader:
    """A source as ``Decoded`` images, or what is wrong with them."""

    def __init__(self, source: Images, size: int | Sequence[int], area: bool) -> None:
        self._source, self._size, self._area = source, size, area

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, item: int) -> Decoded | InvalidInput:
        try:
            name, content, row = self._source[item]
            image = open_square(content, self._size, name, self._area)
            return Decoded(item, row, np.asarray(image))
        except InvalidInput as error:
            return error

    def sound(self, item: int) -> Sound:
        """The first image from ``item`` on that can be read. InvalidInput where MOST_BAD in a row
        cannot.
        """
        wrong: list[tuple[int, str]] = []
        for i in range(item, item + MOST_BAD):
            i %= len(self)
            found = self[i]
            if isinstance(found, Decoded):
                return Sound(found.pixels, wrong)
            wrong.append((i, str(found)))
        raise InvalidInput(
            f"{MOST_BAD} images in a row cannot be read, from {self._source.name(item)} on; look "
            "at the files"
        )


class Sound(NamedTuple):
    """An image that can be read, and what was passed over on the way to it."""

    pixels: np.ndarray  # (S, S, 3) uint8
    wrong: list[tuple[int, str]]  # numbers of images, and why


class Readers:
    """Images of a source whenever they are asked for, read by ``workers`` processes that are forked
    now, or by threads for 0.
    """

    def __init__(self, reader: Reader, workers: int) -> None:
        self._pool: Executor
        if workers:
            fork = multiprocessing.get_context("fork")
            self._pool = ProcessPoolExecutor(workers, fork, _begin, (reader, os.getpid()))
            self._pool.submit(int)
            self._read: Callable[[int], Sound] = _sound
        else:
            self._pool, self._read = ThreadPoolExecutor(), reader.sound

    def __call__(self, items: Sequence[int]) -> list[Sound]:
        """``Reader.sound`` of each, in order."""
        return list(self._pool.map(self._read, items, chunksize=AT_ONCE))


_reader: Reader  # of a process that was forked to read


def _begin(reader: Reader, parent: int) -> None:
    """A process that reads: it ends with the one that it works for, whatever ends that."""
    global _reader
    _reader = reader
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _sound(item: int) -> Sound:
    return _reader.sound(item)


def decoded(
    source: Images,
    span: Sequence[int],
    size: int | Sequence[int],
    bad: list[str],
    workers: int | None = None,
    area: bool = False,
) -> Iterator[Decoded]:
    """The images ``span`` of the source, each scaled and cut to ``size`` pixels as of
    ``open_square``, in order, a few of them ahead.

    They are decoded by ``workers`` processes, or by threads of this one for 0; None is
    ``reading_workers``. The names of those that cannot be read are logged and appended to ``bad``.
    InvalidInput if MOST_BAD in a row cannot.
    """
    reader = Reader(source, size, area)
    workers = reading_workers(len(span)) if workers is None else workers
    found = _by_processes(reader, span, workers) if workers else _by_threads(reader, span)
    in_a_row = 0
    for item, image in zip(span, found, strict=True):
        if isinstance(image, Decoded):
            in_a_row = 0
            yield image
            continue
        log.warning("skipped: %s", image)
        bad.append(source.name(item))
        in_a_row += 1
        if in_a_row == MOST_BAD:
            raise InvalidInput(f"{MOST_BAD} images in a row cannot be read; the last: {image}")


def reading_workers(images: int) -> int:
    """How many processes decode so many images: none for few of them, and where processes cannot be
    forked; else this one's share of the cores.
    """
    if images < MANY or sys.platform != "linux":
        return 0
    share = len(os.sched_getaffinity(0)) // Settings.from_env().world
    return min(MOST_WORKERS, share) if share > 1 else 0


def _by_processes(
    reader: Reader, span: Sequence[int], workers: int
) -> Iterator[Decoded | InvalidInput]:
    from torch.utils.data import DataLoader

    # forked: a source may hold open files
    found: Iterable[list[Any]] = DataLoader(
        reader,  # type: ignore[arg-type]  # it has what is called for
        batch_size=AT_ONCE,
        sampler=span,
        num_workers=min(workers, -(-len(span) // AT_ONCE)),
        collate_fn=list,
        multiprocessing_context="fork",
        prefetch_factor=4,
    )
    for some in found:
        yield from some


def _by_threads(reader: Reader, span: Sequence[int]) -> Iterator[Decoded | InvalidInput]:
    pool = ThreadPoolExecutor()  # PIL decodes outside the interpreter lock
    try:
        yield from _ahead(pool, reader.__getitem__, span, DEPTH)
    finally:
        pool.shutdown(cancel_futures=True)


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[T], R], values: Iterable[T], depth: int
) -> Iterator[R]:
    """``pool.map`` that is never more than ``depth`` values ahead, so that what is not yet needed
    takes no memory.
    """
    waiting: deque[Future[R]] = deque()
    for value in values:
        waiting.append(pool.submit(function, value))
        if len(waiting) > depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
