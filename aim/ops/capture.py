"""Recording CUDA work once, so that the host starts it as a whole."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

T = TypeVar("T")
# to be held while the whole device is waited for, too, as recording does when it begins: both break
# another's
CAPTURING = threading.Lock()


def capture(
    run: Callable[[], T], stream: torch.cuda.Stream, pool: Any = None, warm: int = 2
) -> tuple[torch.cuda.CUDAGraph, T]:
    """``run`` recorded on ``stream``: what ``graph.replay()`` repeats, and what ``run`` returned,
    which each replay overwrites.

    ``run`` first runs ``warm`` times, so that nothing is compiled, tuned or allocated for good
    while it is recorded. Graphs that share a ``pool`` share memory: the results of one are gone
    when another runs. Other threads may use the device.
    """
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    with torch.cuda.stream(stream):
        for _ in range(warm):
            run()
    graph = torch.cuda.CUDAGraph()
    with (
        CAPTURING,
        _uncollected(),
        torch.cuda.graph(graph, pool, stream, capture_error_mode="thread_local"),
    ):
        result = run()
    return graph, result


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage is collected in here: to free another graph or stream breaks a recording."""
    wanted = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if wanted:
            gc.enable()
