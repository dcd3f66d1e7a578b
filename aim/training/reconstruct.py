"""What a tokenizer keeps of images, and how far that is from them; many images in parts that fit
into memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from aim.images.write import to_bytes
from aim.models.vq.model import VQ
from aim.training.data.images import normalize

AT_ONCE = 32 * 256**2  # pixels of images that a network which is not trained sees at once


def in_parts(images: Tensor, *others: Tensor) -> Iterator[tuple[float, list[Tensor]]]:
    """Batches (B, ...) in parts of at most AT_ONCE pixels of ``images`` (B, 3, H, W), each with its
    share of them.
    """
    most = max(1, AT_ONCE // images[0, 0].numel())
    for part in zip(*(batch.split(most) for batch in (images, *others)), strict=True):
        yield len(part[0]) / len(images), list(part)


def reduced(images: Tensor, size: int) -> Tensor:
    """(B, 3, H, H) -> (B, 3, size, size) by area; H is a multiple of ``size``."""
    factor = images.shape[-1] // size
    return images if factor == 1 else F.avg_pool2d(images, factor)


@torch.no_grad()
def reconstruct(model: VQ, images: Tensor) -> Tensor:
    """uint8 images (N, 3, S, S), S the size that goes in or the one that comes out -> what the
    tokenizer keeps of them, uint8 of the same shape.
    """
    most = max(1, AT_ONCE // model.config.output_size**2)
    kept = [
        model.decode(model.encode(reduced(normalize(part), model.config.image_size)))
        for part in images.split(most)
    ]
    return to_bytes(torch.cat([reduced(part, images.shape[-1]) for part in kept]))


def psnr(made: Tensor, images: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of uint8 images ``made`` to ``images`` (N, 3, S, S),
    averaged over images.
    """
    error = (made.float() - images.float()).square().mean((1, 2, 3))
    return (20 * torch.log10(255 / error.sqrt().clamp(min=1e-3))).mean().item()
