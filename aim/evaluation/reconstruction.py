"""What a tokenizer keeps of images: encoded, decoded, and compared with what went in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor

from aim.errors import InvalidInput
from aim.evaluation.images import batched
from aim.evaluation.metrics import Moments, frechet_distance, ssim
from aim.evaluation.observe import Features
from aim.images.write import to_bytes
from aim.models.vq.model import VQ
from aim.tables import plain
from aim.training.data.decoding import Decoded, decoded
from aim.training.data.images import normalize
from aim.training.data.sources import Images
from aim.training.perceptual import LPIPS, PackagedLPIPS
from aim.training.reconstruct import psnr, reduced

TITLES = {"psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS"}


def last(images: Images, count: int | None) -> list[int]:
    """The numbers of the last ``count`` images by name, numbers in names by value: what is held out
    of a source without a validation set. None: of all. InvalidInput where there are not so many.
    """
    if count is None:
        return list(range(len(images)))
    if not 1 <= count <= len(images):
        raise InvalidInput(f"last is {count}; it must be in [1, {len(images)}], the images")

    def by_value(i: int) -> list[str | int]:
        parts = re.split(r"(\d+)", images.name(i))  # texts and numbers by turns
        return [int(part) if n % 2 else part for n, part in enumerate(parts)]

    return sorted(range(len(images)), key=by_value)[-count:]


class _Compared:
    """The figures of images of one size."""

    def __init__(self, features: Sequence[Features], lpips: LPIPS | PackagedLPIPS | None) -> None:
        self._features, self._lpips = features, lpips
        self.count = 0
        self._sums: dict[str, float] = {}
        self._moments = [(Moments(), Moments()) for _ in features]
        self._apart = [0.0 for _ in features]

    def add(self, images: Tensor, made: Tensor) -> None:
        """Images (B, 3, S, S) uint8 and what is kept of them."""
        found = {"psnr": psnr(made, images), "ssim": ssim(made, images).mean().item()}
        if self._lpips is not None:
            found["lpips"] = self._lpips(normalize(made), normalize(images)).mean().item()
        for name, value in found.items():
            self._sums[name] = self._sums.get(name, 0.0) + value * len(images)
        self.count += len(images)
        for i, network in enumerate(self._features):
            seen = [network(part).features for part in (images, made)]
            for moments, vectors in zip(self._moments[i], seen, strict=True):
                moments.add(vectors)
            self._apart[i] += (seen[0] - seen[1]).norm(dim=1).sum().item()

    def figures(self) -> dict[str, Any]:
        """Means over the images; of each network the Fréchet distance of what is kept to the
        images, None for a single image, and how far an image is from what is kept of it.
        """
        seen = {}
        for network, (real, made), apart in zip(
            self._features, self._moments, self._apart, strict=True
        ):
            several = self.count > 1
            seen[network.name] = {
                "rfid": frechet_distance(real.statistics(), made.statistics()) if several else None,
                "feature_distance": apart / self.count,
            }
        means = {name: total / self.count for name, total in self._sums.items()}
        return {"images": self.count, **means, **({"features": seen} if seen else {})}


@torch.inference_mode()
def measure_tokenizer(
    model: VQ,
    images: Images,
    numbers: Sequence[int],
    features: Sequence[Features] = (),
    lpips: LPIPS | PackagedLPIPS | None = None,
    batch: int = 64,
    size: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """The figures of a tokenizer on the images ``numbers`` of a source.

    An image that fills ``size`` pixels, by default what comes out, is scaled to it, reduced to the
    size that goes in by area, encoded, decoded and compared at ``size``, to which a smaller output
    is enlarged bicubically; of a smaller image, scaled to the size that goes in, what comes out is
    reduced to that size by area. ``sizes`` has the figures of each: PSNR in dB, SSIM and LPIPS,
    means over images, and what ``features`` see; ``codes_used``, the share of the codebook, and its
    ``perplexity`` are of all. InvalidInput where no image can be read.
    """
    config, device = model.config, next(model.parameters()).device
    large = config.output_size if size is None else size
    if large < config.image_size or large % config.image_size:
        raise InvalidInput(f"size is {large}; it must be a multiple of {config.image_size}")
    sizes = sorted({config.image_size, large})
    compared = {size: _Compared(features, lpips) for size in sizes}
    counts = torch.zeros(config.codebook_size, dtype=torch.long)
    bad: list[str] = []
    read = decoded(images, numbers, sizes, bad)
    for pixels in _alike(read, batch, sizes):
        wanted = pixels.to(device)
        codes = model.encode(reduced(normalize(wanted), config.image_size))
        made = to_bytes(_scaled(model.decode(codes), wanted.shape[-1]))
        compared[wanted.shape[-1]].add(wanted, made)
        counts += torch.bincount(codes.flatten().cpu(), minlength=len(counts))
        if progress:
            progress(sum(part.count for part in compared.values()) + len(bad), len(numbers))
    if not counts.sum():
        raise InvalidInput(f"none of the {len(bad)} images can be read; the first is {bad[0]}")
    share = counts.double() / counts.sum()
    return {
        "images": len(numbers) - len(bad),
        "unread": len(bad),
        "codebook": config.codebook_size,
        "codes_used": (share > 0).double().mean().item(),
        "perplexity": torch.special.entr(share).sum().exp().item(),
        "sizes": {str(size): part.figures() for size, part in compared.items() if part.count},
    }


def _scaled(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] < size:
        return F.interpolate(images, size=size, mode="bicubic", align_corners=False)
    return reduced(images, size)


def _alike(images: Iterator[Decoded], batch: int, sizes: Sequence[int]) -> Iterator[Tensor]:
    """Batches (B, 3, S, S) uint8, each of one size."""
    waiting: dict[int, list[Any]] = {size: [] for size in sizes}
    for image in images:
        some = waiting[len(image.pixels)]
        some.append(image.pixels)
        if len(some) == batch:
            yield from batched(some, batch)
            some.clear()
    for some in waiting.values():
        yield from batched(some, batch)


def as_table(result: dict[str, Any]) -> Table:
    """The result for people: a column of figures for images of each size."""
    found = list(result["sizes"].values())
    rows = [["images", *(str(part["images"]) for part in found)]]
    for name, title in TITLES.items():
        if name in found[0]:
            rows.append([title, *(f"{part[name]:.4f}" for part in found)])
    for network in found[0].get("features", {}):
        seen = [part["features"][network] for part in found]
        distances = ["" if one["rfid"] is None else f"{one['rfid']:.4f}" for one in seen]
        rows.append([f"rFID, {network}", *distances])
        rows.append(
            [f"mean distance, {network}", *(f"{one['feature_distance']:.4f}" for one in seen)]
        )
    unread = f", {result['unread']} could not be read" if result["unread"] else ""
    return plain(
        f"{result['tokenizer']} {result['version']}, {result['images']} images{unread}",
        ["figure", *(f"at {size} px" for size in result["sizes"])],
        rows,
        f"{result['codes_used']:.1%} of {result['codebook']} codes used, perplexity "
        f"{result['perplexity']:.0f}",
    )
