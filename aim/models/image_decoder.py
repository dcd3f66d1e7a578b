"""From codes to pixels, many images at once, beside whatever else the device does."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from aim.checks import quoted
from aim.config import VQConfig
from aim.errors import InvalidInput
from aim.images import write
from aim.models.vq.model import VQ
from aim.ops.capture import capture

SIZES = (1, 4, 16, 64)  # images that are decoded together
AHEAD = 2  # parts that are being decoded before the first of them is fetched
T = TypeVar("T")


def kept_size(size: Any, config: VQConfig) -> int:
    """Pixels each way of the pictures that are kept: ``size``, or for None what comes out.
    InvalidInput for more than that, or for another shape: a model draws one size.
    """
    most = config.output_size
    if size is None:
        return most
    number = int(size) if isinstance(size, str) and size.isdecimal() else size
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
        raise InvalidInput(
            f"size is {quoted(size)}; this model draws squares of {most}x{most} pixels, which may "
            "be kept smaller (one whole number), not larger or in another shape"
        )
    return number


class _OneThread:
    """Where all of a process is decoded on a CPU: a thread that decoded keeps some 30 MB of a
    128x128 picture's activations, and so would each of a hundred that serve a page. It computes
    with one of PyTorch's (``device.threads``).
    """

    def __init__(self) -> None:
        self._begin()
        if hasattr(os, "register_at_fork"):  # threads stay behind
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._pool = ThreadPoolExecutor(1, "decoder", torch.set_num_threads, (1,))

    def __call__(self, work: Callable[[], T]) -> T:
        return self._pool.submit(work).result()


_in_one_thread = _OneThread()


class Recorded(NamedTuple):
    """The decoding of a fixed number of images, as one CUDA graph."""

    codes: Tensor  # (size, num_tokens), read
    pixels: Tensor  # (size, H, W, 3) uint8, written
    graph: torch.cuda.CUDAGraph

    def run(self, codes: Tensor, pixels: Tensor) -> None:
        """Decode at most ``size`` codes (n, num_tokens) into ``pixels`` (n, H, W, 3), on the
        current stream.
        """
        self.codes[: len(codes)].copy_(codes)
        self.graph.replay()
        pixels.copy_(self.pixels[: len(codes)])


class Decoding:
    """Images that are being decoded."""

    def __init__(self, pixels: Tensor, done: torch.cuda.Event | None) -> None:
        self._pixels, self._done = pixels, done

    def wait(self) -> np.ndarray:
        """The images (n, H, W, 3) uint8, when they are there."""
        if self._done is not None:
            self._done.synchronize()
        return self._pixels.numpy()


class ImageDecoder:
    """Decodes codes to pixels. Thread-safe.

    In bfloat16 on a GPU images are decoded together, ``chunk`` at most, and a pixel may differ by
    rounding between numbers of images. Elsewhere each is decoded alone, so that equal codes are
    equal pixels. On a GPU with fused kernels the decoder is recorded for each of ``SIZES`` when
    that is first needed, and all of this runs on a stream of its own. With a ``size`` pictures
    are reduced to it, before they are rounded.
    """

    def __init__(self, vq: VQ, size: int | None = None) -> None:
        self._vq, self._size = vq, kept_size(size, vq.config)
        self.device = vq.quant_conv.weight.device
        self._sizes = (
            _sizes(vq) if self.device.type == "cuda" and vq.dtype == torch.bfloat16 else (1,)
        )
        self.chunk = self._sizes[-1]
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        self._lock = threading.Lock()
        self._recorded: dict[int, Recorded] = {}
        self._pool: tuple[int, int] | None = None
        with torch.no_grad():
            self._records = vq.fused
        if self._records:
            # what cuDNN reads without a copy
            vq.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def beside(self, work: Callable[[], T]) -> T:
        """What ``work`` gives, done on the decoder's stream, where it waits for nothing that others
        put on theirs, or on a CPU in the one thread that decodes.
        """
        if self._stream is not None:
            with torch.cuda.stream(self._stream):
                return work()
        return _in_one_thread(work) if self.device.type == "cpu" else work()

    def images(self, codes: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Images (H, W, 3) uint8 of codes (num_tokens,), in order, being decoded while the next
        codes are awaited.
        """
        source, begun = iter(codes), deque[Decoding]()
        while some := list(islice(source, self.chunk)):
            begun.append(self.begin(some))
            if len(begun) > AHEAD:
                yield from begun.popleft().wait()
        for part in begun:
            yield from part.wait()

    @torch.inference_mode()
    def begin(self, codes: Sequence[np.ndarray]) -> Decoding:
        """Start decoding images of codes (num_tokens,) each; on a GPU this returns at once.
        InvalidInput for what cannot be codes.
        """
        given = self._checked(codes)
        if self._stream is None:
            return self.beside(lambda: Decoding(self.decode(given.to(self.device)).cpu(), None))

        def ordered() -> Decoding:
            pixels = self.decode(given.pin_memory().to(self.device, non_blocking=True))
            here = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True)
            here.copy_(pixels, non_blocking=True)
            done = torch.cuda.Event(blocking=True)
            done.record(self._stream)
            return Decoding(here, done)

        return self.beside(ordered)

    @torch.inference_mode()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (n, num_tokens) on the device -> images (n, H, W, 3) uint8 on the device, in order
        with the current stream.
        """
        shape = len(codes), self._size, self._size, 3
        pixels = torch.empty(shape, dtype=torch.uint8, device=self.device)
        lengths = list(_parts(len(codes), self._sizes))
        parts = zip(codes.split(lengths), pixels.split(lengths), strict=True)
        if not self._records:
            for some, into in parts:
                into.copy_(self._pixels(some))
            return pixels
        assert self._stream is not None
        current = torch.cuda.current_stream(self.device)
        with self._lock:
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                for some, into in parts:
                    self._record(next(size for size in self._sizes if size >= len(some))).run(
                        some, into
                    )
            current.wait_stream(self._stream)
        return pixels

    def exact(self, codes: Tensor) -> Tensor:
        """Codes (n, num_tokens) on the device -> images (n, 3, H, W) in [-1, 1], nearly, before
        they are rounded.
        """
        images = self._vq.decode(codes)
        whole = self._size == self._vq.config.output_size
        return images if whole else write.reduced(images, self._size)

    def _pixels(self, codes: Tensor) -> Tensor:
        return write.to_bytes(self.exact(codes)).permute(0, 2, 3, 1)

    def _record(self, size: int) -> Recorded:
        if size not in self._recorded:
            assert self._stream is not None
            codes = torch.zeros(
                size, self._vq.config.grid**2, dtype=torch.int64, device=self.device
            )
            with tuned(self._vq.dtype == torch.bfloat16):
                self._pool = self._pool or torch.cuda.graph_pool_handle()
                graph, pixels = capture(
                    lambda: self._pixels(codes).contiguous(), self._stream, self._pool
                )
            self._recorded[size] = Recorded(codes, pixels, graph)
        return self._recorded[size]

    def _checked(self, codes: Sequence[np.ndarray]) -> Tensor:
        config = self._vq.config
        stacked = np.stack([np.asarray(some, np.int64) for some in codes])
        if stacked.shape[1:] != (config.grid**2,):
            raise InvalidInput(
                f"codes have shape {stacked.shape[1:]}; an image has ({config.grid**2},)"
            )
        if stacked.min() < 0 or stacked.max() >= config.codebook_size:
            raise InvalidInput(
                f"codes are in [{stacked.min()}, {stacked.max()}]; they must be in [0, "
                f"{config.codebook_size})"
            )
        return torch.from_numpy(stacked)


def _sizes(vq: VQ) -> tuple[int, ...]:
    """Of ``SIZES``, those whose activations fit a quarter of the memory that is free."""
    # bytes; six of an image's largest, in bfloat16
    widest = 6 * vq.config.output_size**2 * vq.config.ch * 2
    free, _ = torch.cuda.mem_get_info(vq.quant_conv.weight.device)
    return tuple(size for size in SIZES if size == 1 or size * widest < free / 4)


def _parts(count: int, sizes: tuple[int, ...]) -> Iterator[int]:
    """How many images are decoded together: a size may be up to half empty, which costs less than
    two smaller ones.
    """
    while count:
        some = next(
            (count for size in sizes if count <= size <= 2 * count),
            max(size for size in sizes if size <= count),
        )
        yield some
        count -= some


@contextmanager
def tuned(wanted: bool) -> Iterator[None]:
    """Whether cuDNN tries its algorithms for each new shape and keeps the fastest, or takes the
    likeliest.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = wanted
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
