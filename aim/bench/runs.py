"""Batches of requests through an engine, and their pictures, against the clock. What is measured says what its seconds hold."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from aim.bench.machine import synchronize
from aim.engine import Cancelled, Engine, Failed, Finished, Progress, Request
from aim.errors import GenerationError
from aim.media import to_bytes
from aim.models.vq import VQ

PART = 16  # pictures decoded at once


class Spread(NamedTuple):
    """Seconds of several runs of the same thing."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """The median, the least and the most of ``seconds``."""
        return cls(statistics.median(seconds), min(seconds), max(seconds))


def draw(engine: Engine, requests: Sequence[Request], after_step: Callable[[], object] | None = None) -> np.ndarray:
    """Submit ``requests`` at once to an idle engine that has room for all, step until they are done: codes (B, T) on the host.

    ``after_step`` is called after every step of the engine, whose work the device may not have done by then. A request that
    fails raises what it failed with.
    """
    for request in requests:
        engine.submit(request)
    codes: dict[int, np.ndarray] = {}
    while not engine.idle:
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


def step_seconds(engine: Engine, requests: Sequence[Request], device: torch.device) -> list[float]:
    """Seconds of every step of a batch, in order; their sum is when the last code was there.

    On a CUDA device between events recorded behind the steps, on its own clock; elsewhere between returns of ``Engine.step``. The
    first one holds the admission of the batch.
    """
    total = engine.model.config.num_tokens
    if device.type == "cuda":
        marks: list[torch.cuda.Event] = []

        def mark() -> None:
            with engine.work():
                marks.append(torch.cuda.Event(enable_timing=True))
                marks[-1].record()

        mark()
        draw(engine, requests, mark)
        engine.drain()
        return [a.elapsed_time(b) / 1e3 for a, b in pairwise(marks[: total + 1])]
    times = [time.perf_counter()]
    draw(engine, requests, lambda: times.append(time.perf_counter()))
    return [b - a for a, b in pairwise(times[: total + 1])]


def first_code_seconds(engine: Engine, requests: Sequence[Request]) -> float:
    """Seconds from the submission of the batch to the first code of its first request on the host, others drawing along."""
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


class Pictures:
    """Decodes the codes of a batch to uint8 images (B, 3, H, W) on the host, ``PART`` at a time, without waiting for the device."""

    def __init__(self, tokenizer: VQ, batch: int, device: torch.device) -> None:
        size = tokenizer.config.image_size
        self.tokenizer, self.device = tokenizer, device
        self._pinned = device.type == "cuda"
        self.images = torch.empty(batch, 3, size, size, dtype=torch.uint8, pin_memory=self._pinned)

    def on_device(self, codes: np.ndarray) -> Tensor:
        """Codes (B, T) from the host on the device."""
        here = torch.from_numpy(codes)
        return here.pin_memory().to(self.device, non_blocking=True) if self._pinned else here.to(self.device)

    @torch.inference_mode()
    def decode(self, codes: Tensor, start: int = 0) -> None:
        """Codes (n, T) on the device to ``images[start : start + n]``, there once the device is done."""
        for at in range(0, len(codes), PART):
            part = to_bytes(self.tokenizer.decode(codes[at : at + PART]))
            self.images[start + at : start + at + len(part)].copy_(part, non_blocking=self._pinned)

    def decode_all(self, codes: np.ndarray) -> None:
        """Codes (B, T) on the host to ``images``, and wait for it."""
        self.decode(self.on_device(codes))
        synchronize(self.device)


def overlapped_seconds(engine: Engine, batches: Sequence[Sequence[Request]], pictures: Pictures) -> float:
    """Seconds a batch where one is decoded on a second CUDA stream while the next one's codes are drawn.

    The clock runs from the last code of the first batch to the last code of the last one: as many batches of codes as of
    pictures lie between, the last pictures included.
    """
    device, total = pictures.device, engine.model.config.num_tokens
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        codes = draw(engine, batches[0])
        started = time.perf_counter()
        for requests in batches[1:]:
            with torch.cuda.stream(side):
                there = pictures.on_device(codes)
            starts = deque(range(0, len(codes), PART))
            codes = draw(engine, requests, _between(starts, there, pictures, side, total))
            _decode_next(starts, there, pictures, side, len(starts))
            side.synchronize()
        torch.cuda.synchronize()
        return (time.perf_counter() - started) / (len(batches) - 1)


def _between(starts: deque[int], codes: Tensor, pictures: Pictures, side: torch.cuda.Stream, total: int) -> Callable[[], None]:
    """Called after every step of ``total``: hands one part of the pictures to the second stream, evenly over the steps."""
    every, step = max(1, total // len(starts)), 0

    def after() -> None:
        nonlocal step
        if step % every == 0:
            _decode_next(starts, codes, pictures, side, 1)
        step += 1

    return after


def _decode_next(starts: deque[int], codes: Tensor, pictures: Pictures, side: torch.cuda.Stream, parts: int) -> None:
    with torch.cuda.stream(side):
        for _ in range(min(parts, len(starts))):
            start = starts.popleft()
            pictures.decode(codes[start : start + PART], start)
