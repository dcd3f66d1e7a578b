"""Batches of requests through an engine, and their pictures, against the clock. What is measured
says what its seconds hold.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import torch

from aim.bench.machine import Clock
from aim.engine import Cancelled, Engine, Failed, Finished, Progress, Request
from aim.errors import GenerationError
from aim.models.image_decoder import Decoding, ImageDecoder

Stop = Callable[[], bool]


class Stopped(GenerationError):
    """What was being measured was stopped by whoever asked for it; nothing is left in an engine."""


@dataclass(frozen=True)
class Spread:
    """Several runs of the same thing, in seconds unless it says otherwise."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """The median, the least and the most of ``seconds``."""
        return cls(statistics.median(seconds), min(seconds), max(seconds))


def never() -> bool:
    """The ``stop`` of what is not to be stopped."""
    return False


def draw(
    engine: Engine,
    requests: Sequence[Request],
    after_step: Callable[[], object] | None = None,
    stop: Stop = never,
) -> np.ndarray:
    """Submit ``requests`` at once to an idle engine that has room for all, step until they are
    done: codes (B, T) on the host.

    ``after_step`` is called after every step of the engine, whose work the device may not have done
    by then. A request that fails raises what it failed with; ``Stopped`` if ``stop``, which is
    asked before every step, says so. Both leave the engine idle.
    """
    for request in requests:
        engine.submit(request)
    codes: dict[int, np.ndarray] = {}
    while not engine.idle:
        if stop():
            drop(engine, requests)
            raise Stopped("the measurement was stopped")
        for event in engine.step():
            if isinstance(event, Failed):
                drop(engine, requests)
                raise event.error
            if isinstance(event, Cancelled):
                drop(engine, requests)
                raise GenerationError("a request of the benchmark was cancelled")
            if isinstance(event, Finished):
                codes[event.request_id] = event.codes
        if after_step is not None:
            after_step()
    return np.stack([codes[request.id] for request in requests])


def drop(engine: Engine, requests: Sequence[Request]) -> None:
    """Cancel ``requests`` and step until the engine is idle."""
    for request in requests:
        engine.cancel(request.id)
    engine.step()
    while not engine.idle:
        engine.step()


class Drawn(NamedTuple):
    """A batch of codes and when they were there."""

    codes: np.ndarray  # (B, T)
    ends: list[float]  # seconds from submission to the end of each pass of the model, ascending
    seconds: float  # from submission to all codes on the host

    @property
    def at(self) -> list[float]:
        """Seconds from submission to code i of every request, T of them: where there are fewer
        passes as if each drew as many codes.
        """
        tokens, passes = self.codes.shape[1], len(self.ends)
        return [self.ends[-(-(i + 1) * passes // tokens) - 1] for i in range(tokens)]


def timed(
    engine: Engine, requests: Sequence[Request], device: torch.device, stop: Stop = never
) -> Drawn:
    """``draw`` by the clock. What the first step takes holds the admission of the batch.

    On a CUDA device codes are there when an event behind their step has happened (``Clock``),
    elsewhere when ``Engine.step`` returns. The engine must have drawn such a batch before.
    """
    clock, started, before = Clock(device, engine.work), time.perf_counter(), engine.passes.count
    clock.mark()
    codes = draw(engine, requests, clock.mark, stop)
    seconds = time.perf_counter() - started
    engine.drain()
    return Drawn(codes, list(accumulate(clock.laps()[: engine.passes.count - before])), seconds)


def step_seconds(engine: Engine, requests: Sequence[Request], device: torch.device) -> list[float]:
    """Seconds of every step of a batch, in order, as ``timed`` takes them."""
    return [b - a for a, b in pairwise([0.0, *timed(engine, requests, device).ends])]


def first_code_seconds(engine: Engine, requests: Sequence[Request]) -> float:
    """Seconds from the submission of the batch to the first code of its first request on the host,
    others drawing along.
    """
    asked = Request(requests[0].label, requests[0].params, requests[0].seed, preview_every=1)
    batch = [asked, *requests[1:]]
    started = time.perf_counter()
    for request in batch:
        engine.submit(request)
    seconds = None
    while seconds is None and not engine.idle:
        for event in engine.step():
            if isinstance(event, (Progress, Finished)) and event.request_id == asked.id:
                seconds = time.perf_counter() - started
                break
            if isinstance(event, Failed):
                drop(engine, batch)
                raise event.error
    drop(engine, batch)
    if seconds is None:
        raise GenerationError("no code of the first request came")
    return seconds


def decode_images(decoder: ImageDecoder, codes: np.ndarray, stop: Stop = never) -> list[np.ndarray]:
    """Images (H, W, 3) uint8 on the host of codes (B, T). ``Stopped`` if ``stop``, which is asked
    before every image, says so.
    """
    images = []
    for image in decoder.images(codes):
        if stop():
            raise Stopped("the measurement was stopped")
        images.append(image)
    return images


def overlapped(
    engine: Engine, batches: Sequence[Sequence[Request]], decoder: ImageDecoder
) -> tuple[float, list[np.ndarray]]:
    """Seconds a batch where one is decoded while the next one's codes are drawn, and the images (n,
    H, W, 3) of all but the last.

    The clock runs from the last code of the first batch to the last code of the last one, or to the
    last image of the one before it if that comes later: as many batches of codes as of images lie
    between. Decoding is begun in parts, evenly over the steps; on a GPU both run at once.
    """
    codes = draw(engine, batches[0])
    images: list[np.ndarray] = []
    started = time.perf_counter()
    for requests in batches[1:]:
        parts = _Parts(decoder, codes, engine.model.config.num_tokens)
        codes = draw(engine, requests, parts.after_step)
        images += parts.finish()
    return (time.perf_counter() - started) / (len(batches) - 1), images


class _Parts:
    """The decoding of a batch, begun part by part between the ``steps`` of another."""

    def __init__(self, decoder: ImageDecoder, codes: np.ndarray, steps: int) -> None:
        self._image_decoder = decoder
        self._todo = deque(
            list(codes[at : at + decoder.chunk]) for at in range(0, len(codes), decoder.chunk)
        )
        self._begun: list[Decoding] = []
        self._every, self._step = max(1, steps // len(self._todo)), 0

    def after_step(self) -> None:
        if self._todo and self._step % self._every == 0:
            self._begun.append(self._image_decoder.begin(self._todo.popleft()))
        self._step += 1

    def finish(self) -> list[np.ndarray]:
        """Images (n, H, W, 3) of every part, when they are there."""
        self._begun += [self._image_decoder.begin(part) for part in self._todo]
        return [part.wait() for part in self._begun]
