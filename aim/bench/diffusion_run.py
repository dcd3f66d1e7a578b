"""A diffusion model in a race: its laps, and what they come to."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
import torch

from aim.bench.denoising import Denoiser
from aim.bench.diffusion import Diffusion
from aim.bench.machine import Clock, PeakMemory, arithmetic_rate, synchronize
from aim.bench.racers import Lap, Pictures, Racer, measured
from aim.bench.runs import Stop, Stopped

WARM = 20  # steps, all of which do the same


class DiffusionRun:
    """As a ``RacerRun``: pictures of class ``label`` with ``seeds``, guided as ``guidance`` says.

    Its floor is what a step's arithmetic takes at the rate of a large product of matrices here, or
    what reading its weights once takes, whichever is longer.
    """

    def __init__(
        self, model: Diffusion, label: int, seeds: Sequence[int], guidance: float, stop: Stop
    ) -> None:
        self.model, self._seeds, self._stop = model, seeds, stop
        decoder = model.image_decoder
        parts = (model.transformer, decoder.decoder, decoder.post_quant_conv)
        self._matrices = sum(weight.nbytes for weight in model.transformer.parameters())
        self._weights = sum(weight.nbytes for part in parts for weight in part.parameters())
        self._rate = arithmetic_rate(model.device, model.dtype)
        gc.collect()
        held = torch.cuda.memory_allocated(model.device) if model.device.type == "cuda" else None
        self._others = 0 if held is None else held - self._weights
        self._memory = PeakMemory(model.device)
        self._rows = len(seeds) * (1 if guidance == 1 else 2)
        self._denoiser = Denoiser(model, [label] * len(seeds), guidance)
        self.laps: list[Lap] = []

    def warm(self) -> None:
        """Compile and record, then a few steps and pictures that do not count."""
        started = time.perf_counter()
        self._denoiser.prepare()
        synchronize(self.model.device)
        self.warmup_seconds = time.perf_counter() - started
        self._lap(WARM)
        used = self._memory.used()
        self.peak = None if used is None else used - self._others

    def run(self) -> None:
        """One lap that counts."""
        self.laps.append(self._lap())

    def result(self, bandwidth: float) -> Racer:
        """Of all laps."""
        model, times, batch = self.model, measured(self.laps), len(self._seeds)
        steps = model.sampler.steps
        arithmetic = self._rows * model.operations / self._rate
        floor_ms = 1e3 * max(arithmetic, self._matrices / bandwidth)
        latent = self._denoiser.latents
        return Racer(
            name=model.name,
            version=model.version,
            family="DiT",
            parameters=sum(weight.numel() for weight in model.transformer.parameters()),
            backend=model.backend,
            **times,
            codes_per_second=None,
            images_per_second=batch / times["seconds"].median,
            warmup_seconds=self.warmup_seconds,
            capture_seconds=0.0,
            passes=steps,
            codes_per_pass=None,
            memory_bytes=self._weights + latent.nbytes,
            peak_memory_bytes=self.peak,
            sequence_bytes=latent.nbytes // batch,
            weight_bytes=self._matrices,
            state_bytes=2 * latent.nbytes,
            floor_ms=floor_ms,
            floor_fraction=floor_ms * steps / (1e3 * times["codes_seconds"].median),
        )

    def close(self) -> None:
        """Nothing is left behind."""

    def _lap(self, most: int | None = None) -> Lap:
        device = self.model.device
        clock, started = Clock(device), time.perf_counter()
        clock.mark()
        self._denoiser.denoise(self._seeds, _after(clock.mark, self._stop), most)
        synchronize(device)
        seconds = time.perf_counter() - started
        decoding = time.perf_counter()
        images = [some.cpu().numpy() for some in self._denoiser.images()]
        decoded = time.perf_counter() - decoding
        self.pictures = Pictures(None, np.concatenate(images))
        return Lap(tuple(accumulate(clock.laps())), seconds, decoded)


def _after(mark: Callable[[], object], stop: Stop) -> Callable[[], None]:
    def step() -> None:
        mark()
        if stop():
            raise Stopped("the measurement was stopped")

    return step
