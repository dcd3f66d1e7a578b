"""Training images in memory, and the augmentation that every stage shares.

An image set is held as uint8 on the device, which suits sets of a few gigabytes.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from aim.errors import InvalidInput
from aim.training.data.decoding import Reader, Readers, decoded, reading_workers
from aim.training.data.sources import Images, open_images

log = logging.getLogger("aim")


@dataclass(frozen=True)
class ImageSet:
    """Images of one size with their class rows."""

    images: Tensor  # (N, 3, S, S) uint8
    labels: Tensor  # (N,) int64, rows of ``classes``
    classes: tuple[int, ...]  # ImageNet index of each row; empty: classes of one's own
    names: tuple[str, ...] = ()  # of the rows, where the classes are one's own
    origin: str = ""  # fingerprint of the sources

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, pick: Tensor) -> Tensor:
        """Images (B, 3, S, S) uint8 of the numbers ``pick`` (B,), on the device of the set."""
        return self.images[pick.to(self.images.device)]

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on another device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


class StreamedImages:
    """Images of a source that are decoded when they are needed, for sets that no memory holds; all
    but every ``held``-th of them.
    """

    def __init__(
        self, source: Images, size: int, held: int = 0, workers: int | None = None
    ) -> None:
        """``workers`` processes read, threads of this one for 0; None: ``reading_workers``."""
        self.source, self.size, self.origin = source, size, source.fingerprint()
        self._numbers = torch.arange(len(source))
        if held:
            self._numbers = self._numbers[self._numbers % held != 0]
        self.skipped: set[int] = set()  # numbers of images that could not be read
        workers = reading_workers(len(source)) if workers is None else workers
        self._read = Readers(Reader(source, size, area=False), workers)

    def __len__(self) -> int:
        return len(self._numbers)

    def pixels(self, pick: Tensor) -> Tensor:
        """Images (B, 3, S, S) uint8 of the numbers ``pick`` (B,) in [0, len), on the CPU.

        One that cannot be read is named in the log, once, and the next takes its place;
        InvalidInput after MOST_BAD in a row.
        """
        found = self._read(self._numbers[pick].tolist())
        for i, error in (each for image in found for each in image.wrong):
            if i not in self.skipped:
                self.skipped.add(i)
                log.warning("skipped: %s", error)
        return torch.from_numpy(np.stack([image.pixels for image in found])).permute(0, 3, 1, 2)


class Ahead:
    """What ``load`` makes of every item of an endless iterator, made in a thread ``depth`` items
    before it is needed; with ``pin``, in memory that a GPU reads while others go on.
    """

    def __init__(
        self,
        items: Iterator[Tensor],
        load: Callable[[Tensor], Tensor],
        depth: int = 2,
        pin: bool = False,
    ) -> None:
        self._items, self._depth = items, depth
        self._load = (lambda item: _pinned(load(item))) if pin else load
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future[Tensor]] = deque()

    def __next__(self) -> Tensor:
        """The next one; raises what ``load`` raised."""
        while len(self._waiting) <= self._depth:
            self._waiting.append(self._pool.submit(self._load, next(self._items)))
        return self._waiting.popleft().result()


def _pinned(pixels: Tensor) -> Tensor:
    return pixels if pixels.is_cuda else pixels.pin_memory()


def load_images(
    sources: Sequence[str | Path],
    size: int = 64,
    classes: Sequence[int] = (),
    names: Sequence[str] = (),
) -> ImageSet:
    """Read every image of ``sources``; they, ``classes`` and ``names`` are what ``open_images``
    takes.

    Images that cannot be read are named in the log and left out. InvalidInput as of
    ``open_images``, and where not one can be read.
    """
    return in_memory(open_images(sources, classes=classes, names=names), size)


def load_pixels(sources: Sequence[str | Path], size: int) -> ImageSet:
    """``load_images`` of sources that need no classes: the set has none."""
    return in_memory(open_images(sources, labels=False), size)


def in_memory(source: Images, size: int, every: int = 1) -> ImageSet:
    """Every ``every``-th image of ``source`` that can be read; errors and what is logged as of
    ``load_images``.
    """
    span = range(0, len(source), every)
    bad: list[str] = []
    read = list(decoded(source, span, size, bad))
    if not read:
        raise InvalidInput(f"none of the {len(bad)} images can be read; the first is {bad[0]}")
    if bad:
        log.warning("%d of %d images cannot be read and are left out", len(bad), len(span))
    images = (
        torch.from_numpy(np.stack([image.pixels for image in read]))
        .permute(0, 3, 1, 2)
        .contiguous()
    )
    labels = torch.tensor([image.row for image in read])
    return ImageSet(images, labels, source.classes, source.names, source.fingerprint())


def normalize(images: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def random_crops(images: Tensor, min_scale: float, generator: torch.Generator) -> Tensor:
    """A random square of every image, its side ``min_scale`` to 1 of the image's, resized to full
    size, flipped half the time.

    images (B, 3, S, S) uint8 -> (B, 3, S, S) float32 in [-1, 1].
    """
    return crops(
        images, min_scale, torch.rand(4, len(images), device=images.device, generator=generator)
    )


def crops(images: Tensor, min_scale: float, draw: Tensor) -> Tensor:
    """``random_crops`` by given numbers: draw (4, B) in [0, 1) is the side, below 0.5 a mirror
    image, and where the square lies.
    """
    rows, device = len(images), images.device
    scale = min_scale + (1 - min_scale) * draw[0]
    mirror = torch.where(draw[1] < 0.5, -1.0, 1.0)
    theta = torch.zeros(rows, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = scale * mirror, scale
    theta[:, :, 2] = ((2 * draw[2:] - 1) * (1 - scale)).T  # keeps the square inside
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(
        normalize(images), grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


class Batches:
    """Endless shuffled index batches over N items; none comes twice in a pass, and what does not
    fill a batch waits for the next.

    ``step`` is all of its state: set it to go on from there.
    """

    def __init__(self, count: int, batch: int, seed: int) -> None:
        if not 1 <= batch <= count:
            raise InvalidInput(f"batch is {batch}; it must be in [1, {count}], the number of items")
        self.count, self.batch, self.seed = count, batch, seed
        self.step = 0
        self._pass, self._order = -1, torch.empty(0, dtype=torch.long)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Tensor:
        """The next (batch,) indices."""
        per_pass = self.count // self.batch
        number, at = divmod(self.step, per_pass)
        if number != self._pass:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            self._pass, self._order = number, torch.randperm(self.count, generator=generator)
        self.step += 1
        return self._order[at * self.batch : (at + 1) * self.batch]
