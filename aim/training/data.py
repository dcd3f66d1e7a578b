"""Training images in memory, and the augmentation that every stage shares.

An image set is an ImageFolder (``<class wnid>/<file>``), as a folder or as zip files of one. It is held as uint8 on the
device, which suits sets of a few gigabytes.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from aim import imagenet
from aim.errors import InvalidInput

SUFFIXES = {".jpeg", ".jpg", ".png", ".webp"}


@dataclass(frozen=True)
class ImageSet:
    """Images of one size with their class rows."""

    images: Tensor  # (N, 3, S, S) uint8
    labels: Tensor  # (N,) int64, rows of ``classes``
    classes: tuple[int, ...]  # ImageNet indices, ascending

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set on another device."""
        return ImageSet(self.images.to(device), self.labels.to(device), self.classes)


def _files(source: Path) -> Iterator[tuple[Path, Callable[[], bytes]]]:
    """Every image below a folder or in a zip file, whose parent is its class wnid; to be read before the next one."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.suffix.lower() in SUFFIXES:
                yield path, path.read_bytes
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for name in sorted(archive.namelist()):
                if Path(name).suffix.lower() in SUFFIXES:
                    yield source / name, partial(archive.read, name)
    else:
        raise InvalidInput(f"{source} is neither a folder nor a zip file; give one of <wnid>/<name>.JPEG")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SyntaxError, ValueError, zipfile.BadZipFile, zlib.error, Image.DecompressionBombError) as error:
        raise InvalidInput(f"{path} cannot be read as an image ({error}); replace or remove it") from error


def _rows(wnids: set[str]) -> tuple[int, ...]:
    index_of = {c.wnid: c.index for c in imagenet.classes()}
    unknown = wnids - index_of.keys()
    if unknown:
        raise InvalidInput(f"{min(unknown)!r} is not an ImageNet wnid; image folders must be named like n01443537")
    return tuple(sorted(index_of[wnid] for wnid in wnids))


def _decode(path: Path, content: bytes, size: int) -> np.ndarray:
    """An image file -> (S, S, 3) uint8: the shorter side scaled to ``size``, the centre kept."""
    with _reading(path), Image.open(io.BytesIO(content)) as opened:
        image = opened.convert("RGB")
    if image.size != (size, size):
        scale = size / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
        left, top = (image.width - size) // 2, (image.height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image)


def load_images(sources: Sequence[str | Path], size: int = 64, classes: Iterable[int] = ()) -> ImageSet:
    """Read every image of ``sources`` (folders or zip files whose folders are named by wnid).

    ``classes`` fixes the rows, for a validation set; by default they are the classes found, by ImageNet index.
    Raises InvalidInput for a folder that is no ImageNet class, for a file that cannot be read, or for no image at all.
    """
    found: list[tuple[Path, bytes]] = []
    for source in sources:
        for path, read in _files(Path(source)):
            with _reading(path):
                found.append((path, read()))
    if not found:
        raise InvalidInput(f"no image in {[str(s) for s in sources]}; expected <wnid>/<name>.JPEG in folders or zip files")
    present = _rows({path.parent.name for path, _ in found})
    rows = tuple(classes) or present
    surplus = set(present) - set(rows)
    if surplus:
        raise InvalidInput(f"class {imagenet.title(min(surplus))} is not among the {len(rows)} classes asked for")
    row_of = {imagenet.classes()[index].wnid: row for row, index in enumerate(rows)}
    labels = [row_of[path.parent.name] for path, _ in found]
    with ThreadPoolExecutor() as pool:  # PIL decodes outside the interpreter lock
        pixels = np.stack(list(pool.map(lambda item: _decode(item[0], item[1], size), found)))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return ImageSet(images, torch.tensor(labels), rows)


def normalize(images: Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def random_crops(images: Tensor, min_scale: float, generator: torch.Generator) -> Tensor:
    """A random square of every image, its side ``min_scale`` to 1 of the image's, resized to full size, flipped half the time.

    images (B, 3, S, S) uint8 -> (B, 3, S, S) float32 in [-1, 1].
    """
    rows, device = len(images), images.device
    draw = torch.rand(4, rows, device=device, generator=generator)
    scale = min_scale + (1 - min_scale) * draw[0]
    mirror = torch.where(draw[1] < 0.5, -1.0, 1.0)
    theta = torch.zeros(rows, 2, 3, device=device)
    theta[:, 0, 0], theta[:, 1, 1] = scale * mirror, scale
    theta[:, :, 2] = ((2 * draw[2:] - 1) * (1 - scale)).T  # keeps the square inside
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(normalize(images), grid, mode="bilinear", padding_mode="reflection", align_corners=False)


class Batches:
    """Endless shuffled index batches over N items; none comes twice in a pass, and what does not fill a batch waits for the next.

    ``step`` is all of its state: set it to go on from there.
    """

    def __init__(self, count: int, batch: int, seed: int) -> None:
        if not 1 <= batch <= count:
            raise InvalidInput(f"batch is {batch}; it must be in [1, {count}], the number of items")
        self.count, self.batch, self.seed = count, batch, seed
        self.step = 0
        self._pass, self._order = -1, torch.empty(0, dtype=torch.long)

    def __next__(self) -> Tensor:
        """The next (batch,) indices."""
        per_pass = self.count // self.batch
        number, at = divmod(self.step, per_pass)
        if number != self._pass:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            self._pass, self._order = number, torch.randperm(self.count, generator=generator)
        self.step += 1
        return self._order[at * self.batch : (at + 1) * self.batch]
