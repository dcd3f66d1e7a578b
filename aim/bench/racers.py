"""One model of a race: what it is, its engine, its laps, and what they come to."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from aim.bench.machine import PeakMemory
from aim.bench.runs import Spread, Stop, decode_images, timed
from aim.engine import Request
from aim.engine.memory import pool_bytes, state_shapes
from aim.models.image_decoder import ImageDecoder
from aim.pipeline import Pipeline

LAP = ("codes_seconds", "first_code_seconds", "decode_seconds", "seconds")


@dataclass(frozen=True)
class Lap:
    """One timed run of one model: a batch of codes, then its pictures. Seconds."""

    # from submission to code i of every picture of the batch, ascending; see ``runs.timed``; of a
    # diffusion model to the end of step i
    code_seconds: tuple[float, ...]
    codes_seconds: float  # from submission to all codes on the host, or to all latents
    decode_seconds: float  # from there to all pictures as bytes on the host

    @property
    def first_code_seconds(self) -> float:
        """From submission to the first code."""
        return self.code_seconds[0]

    @property
    def seconds(self) -> float:
        """From submission to the pictures."""
        return self.codes_seconds + self.decode_seconds


@dataclass(frozen=True)
class Racer:
    """One model. Spreads are of all its laps, of the whole batch; bytes are told apart by who holds
    or moves them.

    All racers stay in memory while they take turns. ``memory_bytes`` are this one's tensors by
    count: the weights of model and tokenizer, not what a backend adds to them, and the engine's
    pools for this batch. ``peak_memory_bytes`` is measured while it warms up: on CUDA what
    PyTorch's tensors took at the most less what was there before, its own weights excepted, so what
    it takes alone; elsewhere of the whole process. ``weight_bytes`` and ``state_bytes`` are what a
    step must move, on average, ``floor_ms`` what that takes at the machine's copy bandwidth,
    ``floor_fraction`` that over the mean step. A diffusion model has no codes: its passes are its
    steps, and its floor is what their arithmetic takes, where that is longer.
    """

    name: str
    version: str  # of the weights; "random" without any
    family: str  # AiM, GPT or DiT
    parameters: int  # without the tokenizer
    backend: str
    laps: tuple[Lap, ...]  # in the order in which they were run
    codes_seconds: Spread
    first_code_seconds: Spread
    decode_seconds: Spread
    seconds: Spread  # codes, then pictures
    codes_per_second: float | None  # of the whole batch, at the median
    images_per_second: float  # decoding included, at the median
    warmup_seconds: float  # of the first batch, compilation included, capture not
    capture_seconds: float  # of CUDA graphs
    passes: int  # of the model, for a batch
    codes_per_pass: float | None
    memory_bytes: int
    peak_memory_bytes: int | None
    # recurrent state or cache of one picture, both rows where there is guidance
    sequence_bytes: int
    weight_bytes: int
    state_bytes: int
    floor_ms: float
    floor_fraction: float

    @property
    def replay(self) -> Lap:
        """The lap with the median total, of an even number the faster of the two: whose code times
        are shown.
        """
        return sorted(self.laps, key=lambda lap: lap.seconds)[(len(self.laps) - 1) // 2]


class Pictures(NamedTuple):
    """What one racer drew: the same in every lap."""

    codes: np.ndarray | None  # (B, T) int64
    images: np.ndarray  # (B, H, W, 3) uint8


def measured(laps: Sequence[Lap]) -> dict[str, Any]:
    """The fields of a ``Racer`` that follow from its laps alone."""
    return {
        "laps": tuple(laps),
        **{name: Spread.of([getattr(lap, name) for lap in laps]) for name in LAP},
    }


class RacerRun:
    """One racer on its way: its engine, its image decoder, its laps so far. OutOfMemoryError where
    ``requests`` do not fit.
    """

    def __init__(self, pipe: Pipeline, requests: Sequence[Request], stop: Stop) -> None:
        self.pipe, self._requests, self._stop = pipe, requests, stop
        self.weights = sum(
            part.nbytes
            for module in (pipe.model, pipe.tokenizer)
            for part in (*module.parameters(), *module.buffers())
        )
        self._cuda = pipe.device.type == "cuda"
        gc.collect()
        self._others = torch.cuda.memory_allocated(pipe.device) - self.weights if self._cuda else 0
        self._memory = PeakMemory(pipe.device)
        self.engine = pipe.engine(len(requests))
        if self.engine.max_requests < len(requests):
            raise torch.OutOfMemoryError
        self._image_decoder = ImageDecoder(pipe.tokenizer)
        self.laps: list[Lap] = []

    def warm(self) -> None:
        """Batches that do not count."""
        self.pictures, first = self._lap()
        self.warmup_seconds = first.seconds - self.engine.graphs.capture
        if self._cuda:
            self._lap()  # clocks and allocations settle
        used = self._memory.used()
        self.peak = None if used is None else used - self._others

    def run(self) -> None:
        """One lap that counts."""
        self.pictures, lap = self._lap()
        self.laps.append(lap)

    def result(self, bandwidth: float) -> Racer:
        """Of all laps."""
        pipe, model, times = self.pipe, self.engine.model, measured(self.laps)
        batch, tokens = len(self._requests), model.config.num_tokens
        rows = sum(request.rows for request in self._requests)
        median = times["codes_seconds"].median
        moved = model.traffic(rows)
        return Racer(
            name=pipe.name,
            version=pipe.version,
            family=type(pipe.model).__name__,
            parameters=sum(weight.numel() for weight in pipe.model.parameters()),
            backend=pipe.backend,
            **times,
            codes_per_second=batch * tokens / median,
            images_per_second=batch / times["seconds"].median,
            warmup_seconds=self.warmup_seconds,
            capture_seconds=self.engine.graphs.capture,
            passes=self._taken,
            codes_per_pass=tokens / self._taken,
            memory_bytes=self.weights + pool_bytes(model, 2 * batch),
            peak_memory_bytes=self.peak,
            sequence_bytes=sum(part.nbytes for part in state_shapes(model, rows)) // batch,
            weight_bytes=moved.weights,
            state_bytes=moved.state,
            floor_ms=moved.floor_ms(bandwidth),
            floor_fraction=moved.floor_ms(bandwidth) * self._taken / (1e3 * median),
        )

    def close(self) -> None:
        """Leave the engine idle."""
        self.engine.drain()

    def _lap(self) -> tuple[Pictures, Lap]:
        drawn = timed(self.engine, self._requests, self.pipe.device, self._stop)
        self._taken = len(drawn.ends)
        started = time.perf_counter()
        images = decode_images(self._image_decoder, drawn.codes, self._stop)
        seconds = time.perf_counter() - started
        return Pictures(drawn.codes, np.stack(images)), Lap(tuple(drawn.at), drawn.seconds, seconds)
