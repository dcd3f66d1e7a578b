"""How fast a model draws at each batch size, and how far that is from what the memory allows."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from aim.bench.machine import Machine, PeakMemory, copy_bandwidth
from aim.bench.runs import Spread, decode_images, draw, first_code_seconds, overlapped, step_seconds
from aim.engine import Request
from aim.errors import AimError, GenerationError, InvalidInput
from aim.models.image_decoder import ImageDecoder
from aim.models.interface import Decoder
from aim.pipeline import Pipeline

LARGEST = 4096
CLASSES_SEED = 0
Say = Callable[[str], object]


@dataclass(frozen=True)
class Speed:
    """One batch size. Seconds are medians of ``repeats`` runs after warm-up, of the whole batch
    unless the name says otherwise.

    ``step_ms`` is the median over the steps of one batch, ``step_ms_mean`` the time of all codes
    over the number of ``passes``, fewer than codes where the model looks ahead. Pictures are uint8
    on the host. Bytes are of one step, averaged over a sequence; ``floor_ms`` is what they take at
    the machine's copy bandwidth, ``floor_fraction`` that over ``step_ms_mean``.
    """

    batch: int
    rows: int
    repeats: int
    step_ms: float
    step_ms_mean: float
    codes_seconds: float
    seconds: float  # codes, then pictures
    seconds_min: float
    seconds_max: float
    images_per_second: float
    # pictures decoded while the next batch is drawn; None without CUDA
    images_per_second_overlapped: float | None
    decode_ms_per_image: float
    first_code_ms: float  # from the submission of the batch to a code on the host
    warmup_seconds: float  # of the first batch, compilation included, capture not
    capture_seconds: float  # of CUDA graphs
    captures: int
    passes: int
    codes_per_pass: float
    peak_memory_bytes: int | None  # see PeakMemory
    reserved_memory_bytes: int | None  # captured graphs included; None without CUDA
    weight_bytes: int
    state_bytes: int
    floor_ms: float
    floor_fraction: float


@dataclass(frozen=True)
class NoRoom:
    """A batch size that the device's memory does not hold."""

    batch: int
    error: str = "out of memory"


def parse_batches(text: str) -> list[int]:
    """The batch sizes in "1,16,64", each once, in order; InvalidInput if it is not that."""
    return parse_numbers("batch", text, LARGEST)


def parse_numbers(name: str, text: str, most: int) -> list[int]:
    """The whole numbers in [1, most] in "1,16,64", each once, in order; InvalidInput, which calls
    them ``name``, if it is not that.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(
        part.isascii() and part.isdigit() and 1 <= int(part[:9]) <= most and len(part) < 9
        for part in parts
    ):
        raise InvalidInput(
            f"{name} is {text!r}; it must be whole numbers in [1, {most}], separated by commas, as "
            "in 1,16,64"
        )
    return list(dict.fromkeys(map(int, parts)))


def requests_for(model: Decoder, batch: int) -> list[Request]:
    """A batch of random classes, the same every time, seeds 0, 1, ..., with the model's own
    sampling defaults.
    """
    labels = np.random.default_rng(CLASSES_SEED).integers(model.config.num_classes, size=batch)
    return [Request(int(label), model.config.sampling, seed) for seed, label in enumerate(labels)]


def measure(
    pipe: Pipeline,
    batch: int,
    bandwidth: float,
    repeats: int = 5,
    seconds: float = 0.0,
    say: Say = lambda text: None,
) -> Speed:
    """One batch size in an engine of its own: at least ``repeats`` whole batches, and as many as
    take ``seconds``.

    ``bandwidth`` is the machine's, in bytes a second. Errors of the model come through.
    """
    device = pipe.device
    cuda = device.type == "cuda"
    memory = PeakMemory(device)
    engine = pipe.engine(max_requests=batch)
    model, config = engine.model, engine.model.config
    if engine.max_requests < batch:
        raise torch.OutOfMemoryError(
            f"{engine.max_requests} of {batch} images at once fit into the device's memory"
        )
    decoder = ImageDecoder(pipe.tokenizer)

    def whole() -> tuple[float, float]:
        started = time.perf_counter()
        codes = draw(engine, requests_for(model, batch))
        drawn = time.perf_counter()
        decode_images(decoder, codes)
        return drawn - started, time.perf_counter() - drawn

    say(f"batch {batch}: warming up")
    first = sum(whole())
    captures, capture_seconds = engine.graphs.captures, engine.graphs.capture
    if cuda:
        whole()  # clocks and allocations settle
    runs: list[tuple[float, float]] = []
    while len(runs) < repeats or sum(map(sum, runs)) < seconds:
        say(f"batch {batch}: run {len(runs) + 1} of {max(repeats, len(runs) + 1)}")
        runs.append(whole())
    codes, decoding, both = (
        Spread.of([r[0] for r in runs]),
        Spread.of([r[1] for r in runs]),
        Spread.of([sum(r) for r in runs]),
    )
    say(f"batch {batch}: steps and the first code")
    every = step_seconds(engine, requests_for(model, batch), device)
    steps, passes = Spread.of(every), len(every)
    first_code = Spread.of(
        [first_code_seconds(engine, requests_for(model, batch)) for _ in range(repeats)]
    )
    beside = None
    if cuda:
        say(f"batch {batch}: decoding beside the next batch")
        beside, _ = overlapped(
            engine, [requests_for(model, batch) for _ in range(repeats + 2)], decoder
        )
    engine.drain()
    rows = sum(request.rows for request in requests_for(model, batch))
    moved = model.traffic(rows)
    mean = 1e3 * codes.median / passes
    return Speed(
        batch=batch,
        rows=rows,
        repeats=len(runs),
        step_ms=1e3 * steps.median,
        step_ms_mean=mean,
        codes_seconds=codes.median,
        seconds=both.median,
        seconds_min=both.min,
        seconds_max=both.max,
        images_per_second=batch / both.median,
        images_per_second_overlapped=None if beside is None else batch / beside,
        decode_ms_per_image=1e3 * decoding.median / batch,
        first_code_ms=1e3 * first_code.median,
        warmup_seconds=first - capture_seconds,
        capture_seconds=capture_seconds,
        captures=captures,
        passes=passes,
        codes_per_pass=config.num_tokens / passes,
        peak_memory_bytes=memory.used(),
        reserved_memory_bytes=memory.reserved(),
        weight_bytes=moved.weights,
        state_bytes=moved.state,
        floor_ms=moved.floor_ms(bandwidth),
        floor_fraction=moved.floor_ms(bandwidth) / mean,
    )


@dataclass(frozen=True)
class Report:
    """Everything of one run of the benchmark."""

    model: str
    version: str  # of the weights; "random" without any
    parameters: int  # of the model without its tokenizer
    dtype: str
    backend: str
    # of choosing the backend: on a GPU, the compilation of its kernels for a small batch
    trial_seconds: float
    guidance: float
    tokens: int
    image_size: int
    copy_bandwidth: float  # bytes a second, read and written
    machine: Machine
    batches: tuple[Speed | NoRoom, ...]


def bench(
    pipe: Pipeline,
    batches: Sequence[int],
    repeats: int = 5,
    seconds: float = 0.0,
    say: Say = lambda text: None,
) -> Report:
    """Measure the pipeline's model at every batch size, one after the other; ``say`` is told what
    is being done.

    A batch size that does not fit into the device's memory is reported as such. Any other failure
    is raised, as an AimError.
    """
    say("the memory's bandwidth")
    bandwidth = copy_bandwidth(pipe.device)
    results: list[Speed | NoRoom] = []
    for batch in batches:
        release(pipe.device)
        try:
            results.append(measure(pipe, batch, bandwidth, repeats, seconds, say))
        except torch.OutOfMemoryError:
            results.append(NoRoom(batch))
        except AimError:
            raise
        except Exception as error:
            raise GenerationError(f"the model failed at batch {batch}: {error}") from error
    return Report(
        model=pipe.name,
        version=pipe.version,
        parameters=sum(weight.numel() for weight in pipe.model.parameters()),
        dtype=str(pipe.dtype).removeprefix("torch."),
        backend=pipe.backend,
        trial_seconds=pipe.trial_seconds,
        guidance=pipe.sampling.cfg_scale,
        tokens=pipe.model.config.num_tokens,
        image_size=pipe.tokenizer.config.output_size,
        copy_bandwidth=bandwidth,
        machine=Machine.of(pipe.device),
        batches=tuple(results),
    )


def release(device: torch.device) -> None:
    """Give back to the device what is held no more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
