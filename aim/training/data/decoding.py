"""Many images of a source as pixels: decoded ahead by threads, those that cannot be read named,
counted and left out.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from aim.errors import InvalidInput
from aim.images.read import open_square
from aim.training.data.sources import Images

MOST_BAD = 100  # images in a row that cannot be read: then it is not the images

log = logging.getLogger("aim")
T = TypeVar("T")
R = TypeVar("R")


class Decoded(NamedTuple):
    """One image that could be read."""

    item: int  # its number in the source
    row: int  # of its class
    pixels: np.ndarray  # (S, S, 3) uint8


def decoded(
    source: Images,
    span: Sequence[int],
    size: int | Sequence[int],
    pool: ThreadPoolExecutor,
    bad: list[str],
    depth: int = 128,
    area: bool = False,
) -> Iterator[Decoded]:
    """The images ``span`` of the source, each scaled and cut to ``size`` pixels as of
    ``open_square``, in order; at most ``depth`` of them ahead.

    The names of those that cannot be read are logged and appended to ``bad``. InvalidInput if
    MOST_BAD in a row cannot.
    """

    def read(item: int) -> Decoded | InvalidInput:
        try:
            name, content, row = source[item]
            return Decoded(item, row, np.asarray(open_square(content, size, name, area)))
        except InvalidInput as error:
            return error

    in_a_row = 0
    for item, found in zip(span, _ahead(pool, read, span, depth), strict=True):
        if isinstance(found, Decoded):
            in_a_row = 0
            yield found
            continue
        log.warning("skipped: %s", found)
        bad.append(source.name(item))
        in_a_row += 1
        if in_a_row == MOST_BAD:
            raise InvalidInput(f"{MOST_BAD} images in a row cannot be read; the last: {found}")


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
