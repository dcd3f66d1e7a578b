"""The set of images that is evaluated: balanced over the classes, seeds by index, shared by
processes, resumable.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from aim.checkpoint.weights import content_hash
from aim.checks import whole
from aim.config import NEUTRAL, SamplingParams, check_seed
from aim.engine import Failed, Finished, Request
from aim.errors import AimError, InvalidInput
from aim.evaluation.drawing import balanced_rows
from aim.evaluation.images import THREADS, batched, write_npz
from aim.files import replace
from aim.images import read, write
from aim.models.image_decoder import ImageDecoder, kept_size
from aim.pipeline import Pipeline
from aim.stream import run

SETTINGS, PICTURES, ARRAY = "settings.json", "png", "samples.npz"


class SampleSet:
    """``count`` images of a pipeline in a folder, ``png/<i>.png``: image i of class row
    ``rows[i]``, drawn with seed ``seed + i``; ``classes`` are those of the model that are drawn,
    all by default; ``size``, pixels each way, is what pictures are reduced to, by default not.

    So which process draws an image, and with whom in a batch, makes no difference. Pixels are equal
    in float32 on one machine: on a CPU with the same number of PyTorch's threads, on a GPU with the
    same ``batch``; in bfloat16 on a GPU if that is a multiple of 64. Each picture carries its
    parameters. A file that is there, can be read and has the right parameters is kept.
    """

    def __init__(
        self,
        pipe: Pipeline,
        folder: Path,
        count: int,
        params: SamplingParams | None = None,
        seed: int = 0,
        batch: int = 64,
        classes: Sequence[int] | None = None,
        size: int | str | None = None,
    ) -> None:
        self.pipe, self.folder = pipe, folder
        self.count, self.batch = whole("count", count, 1), whole("batch", batch, 1)
        self.params, self.seed = params or pipe.sampling, check_seed(seed)
        check_seed(seed + count - 1)
        self.asked = pipe.classes if classes is None else tuple(classes)
        rows = [pipe.labels.row(index) for index in self.asked]
        self.rows = [rows[place] for place in balanced_rows(count, len(rows))]
        self.size = kept_size(size, pipe.tokenizer.config)
        self._device = pipe.where[0].partition(":")[0]
        # where a batch's size changes last bits
        self._padded = pipe.device.type == "cuda" and pipe.dtype != torch.float32

    def settings(self) -> dict[str, Any]:
        """What decides the pixels, as it stands in settings.json."""
        return {
            "model": self.pipe.name,
            "version": self.pipe.version,
            "tokenizer": content_hash(self.pipe.tokenizer.state_dict(), ""),
            **asdict(self.params),
            "count": self.count,
            **({} if self.asked == self.pipe.classes else {"classes": list(self.asked)}),
            "seed": self.seed,
            **self._reduced,
            "device": self._device,
            "dtype": self.pipe.where[1],
            **(
                {"threads": torch.get_num_threads()}
                if self._device == "cpu"
                else {"batch": self.batch}
            ),
        }

    @cached_property
    def decoder(self) -> ImageDecoder:
        """What makes the pictures of their codes."""
        return ImageDecoder(self.pipe.tokenizer, self.size)

    @property
    def _reduced(self) -> dict[str, int]:
        """The size of the pictures, where it is not what the model draws."""
        drawn = self.size == self.pipe.tokenizer.config.output_size
        return {} if drawn else {"size": self.size}

    def open(self) -> None:
        """Make the folder, or check that what is in it is this set. InvalidInput names what
        differs.
        """
        path, ours = self.folder / SETTINGS, self.settings()
        way = "draw into another folder with --out, or with the settings of this one"
        theirs: Any = None
        # looked at first, as other processes may be at work
        begun = any((self.folder / PICTURES).glob("*.png"))
        if path.exists():
            try:
                theirs = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise InvalidInput(f"{path} cannot be read ({error}); {way}") from error
        elif not begun:
            theirs = ours
            replace(path, json.dumps(ours, indent=1) + "\n")
        if not isinstance(theirs, dict):
            raise InvalidInput(f"{self.folder} holds pictures and no settings in {SETTINGS}; {way}")
        theirs = {**asdict(NEUTRAL), **theirs}  # a parameter that it does not name came later
        for name in {**theirs, **ours}:
            if theirs.get(name) != ours.get(name):
                raise InvalidInput(
                    f"{self.folder} is another set: its {name} is {theirs.get(name)}, not "
                    f"{ours.get(name)}; {way}"
                )

    def path(self, i: int) -> Path:
        """Where image i is."""
        return self.folder / PICTURES / f"{i:06d}.png"

    def read(self, i: int) -> np.ndarray | None:
        """Image i (S, S, 3) uint8, or None if it is not there, cannot be read, or is another."""
        path, wanted = self.path(i), self._parameters(i)
        try:
            found = {**asdict(NEUTRAL), **read.read_parameters(path)}
            image = read.open_image(path)
        except InvalidInput:
            return None
        same = all(found.get(name) == value for name, value in wanted.items() if name != "package")
        return np.asarray(image) if same and image.size == (self.size, self.size) else None

    def missing(self, indices: Sequence[int]) -> list[int]:
        """Those of the images that are to be drawn."""
        with ThreadPoolExecutor(THREADS) as pool:
            return [
                i
                for i, gone in zip(
                    indices, pool.map(lambda i: self.read(i) is None, indices), strict=True
                )
                if gone
            ]

    def draw(
        self, rank: int = 0, world: int = 1, progress: Callable[[int, int], object] | None = None
    ) -> int:
        """Draw what is missing of every ``world``-th image, from image ``rank`` on; how many that
        was.

        ``progress`` hears the images of this share that are there, and how many it has.
        InvalidInput where a file cannot be written, GenerationError where the model fails.
        """
        share = range(rank, self.count, world)
        todo = self.missing(share)
        done = len(share) - len(todo)
        with ThreadPoolExecutor(THREADS) as pool:
            writing: deque[Future[None]] = deque()
            for i, pixels in self._drawn(todo):
                writing.append(pool.submit(self._write, i, pixels))
                while len(writing) > 4 * THREADS or (writing and writing[0].done()):
                    writing.popleft().result()
                done += 1
                if progress:
                    progress(done, len(share))
            for future in writing:
                future.result()
        return len(todo)

    def arrays(self) -> Iterator[np.ndarray]:
        """Every image (S, S, 3) uint8, in order. AimError for one that is not there."""
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, self.count, 16 * THREADS):
                indices = range(start, min(start + 16 * THREADS, self.count))
                yield from pool.map(self.there, indices)

    def images(self, batch: int) -> Iterator[Tensor]:
        """Every image, in order, as batches (B, 3, S, S) uint8."""
        return batched(self.arrays(), batch)

    def classes(self) -> list[int]:
        """The class of each image: its ImageNet index, or the model's own."""
        return [self.pipe.classes[row] for row in self.rows]

    def pack(self) -> Path:
        """Write ADM's ``samples.npz`` and say where it is."""
        write_npz(self.folder / ARRAY, self.arrays(), self.classes(), self.size)
        return self.folder / ARRAY

    def _drawn(self, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Images (S, S, 3) uint8 with their numbers, as they are done, decoded while the next are
        drawn.
        """
        order: deque[int | None] = deque()

        def codes() -> Iterator[np.ndarray]:
            for i, drawn in self.codes(indices):
                order.append(i)
                yield drawn

        for pixels in self.decoder.images(codes()):
            i = order.popleft()
            if i is not None:
                yield i, pixels

    def codes(self, indices: Sequence[int]) -> Iterator[tuple[int | None, np.ndarray]]:
        """Codes (num_tokens,) with the numbers of their images, as they are drawn; None for one
        that only fills a batch.
        """
        if not indices:
            return
        # an engine of its own has a full batch at every step
        here = self.pipe.started is None or not self.pipe.started.reports
        engine = self.pipe.engine(min(self.batch, self.count)) if here else None
        surplus = -len(indices) % engine.max_requests if engine and self._padded else 0
        index_of: dict[int, int | None] = {}
        requests: list[Request] = []
        for i in [*indices, *[indices[-1]] * surplus]:
            request = Request(self.rows[i], self.params, self.seed + i)
            index_of[request.id] = i if len(requests) < len(indices) else None
            requests.append(request)
        for event in engine.run(requests) if engine else run(self.pipe.server, requests):
            if isinstance(event, Finished):
                yield index_of[event.request_id], event.codes
            elif isinstance(event, Failed):
                raise event.error

    def there(self, i: int) -> np.ndarray:
        """Image i (S, S, 3) uint8. AimError if it is not there."""
        image = self.read(i)
        if image is None:
            raise AimError(f"{self.path(i)} is missing or damaged; the same command draws it again")
        return image

    def _parameters(self, i: int) -> dict[str, Any]:
        """What the file of image i carries; the same whichever process draws it."""
        found = self.pipe.parameters(self.pipe.classes[self.rows[i]], self.seed + i, self.params)
        return {**found, **self._reduced, "device": self._device}

    def _write(self, i: int, pixels: np.ndarray) -> None:
        replace(self.path(i), write.png_bytes(Image.fromarray(pixels), self._parameters(i)))
