"""Which versions of an image become codes: mirror images and crops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from aim.errors import InvalidInput
from aim.training.data.images import crops, normalize

MARGIN = 1.1  # side of what ten crops are taken from, in crops
MIN_SCALE = 0.8  # side of the smallest random crop, in images


class Versions(NamedTuple):
    """Which versions of an image are encoded.

    ``plain``: the image; ``flip``: and its mirror image; ``random:N``: and N - 2 random crops;
    ``ten-crop``: the centre and the corners of the image at 1.1 times the size, each with its
    mirror image.
    """

    kind: str
    number: int  # of versions

    @classmethod
    def parse(cls, text: str) -> Versions:
        """From plain, flip, ten-crop or random[:N], N in [3, 100], 8 if left out; InvalidInput for
        anything else.
        """
        kind, colon, number = text.partition(":")
        fixed = {"plain": 1, "flip": 2, "ten-crop": 10}
        if kind in fixed and not colon:
            return cls(kind, fixed[kind])
        number = number if colon else "8"
        if kind == "random" and number.isdecimal() and 3 <= int(number) <= 100:
            return cls(kind, int(number))
        raise InvalidInput(
            f"versions is {text!r}; it must be plain, flip, ten-crop or random:<number>, the "
            "number in [3, 100]"
        )

    def side(self, size: int) -> int:
        """Pixels each way to which an image is scaled, for crops of ``size``."""
        return int(size * MARGIN) if self.kind == "ten-crop" else size

    def of(self, images: Tensor, size: int, draws: Tensor) -> Iterator[Tensor]:
        """Images (B, 3, side, side) uint8 -> each version (B, 3, size, size) in [-1, 1]; ``draws``
        (B, count - 2, 4) of random crops.
        """
        if self.kind == "ten-crop":
            far = images.shape[2] - size
            corners = ((far // 2, far // 2), (0, 0), (0, far), (far, 0), (far, far))
            squares = [images[:, :, top : top + size, left : left + size] for top, left in corners]
        else:
            squares = [images]
        for square in squares:
            yield normalize(square)
            if self.number > 1:
                yield normalize(square.flip(3))
        if self.kind == "random":
            for i in range(self.number - 2):
                yield crops(images, MIN_SCALE, draws[:, i].T)

    def draws(self, seed: int, item: int) -> Tensor:
        """(number - 2, 4) in [0, 1) for the random crops of image ``item``, the same in whichever
        batch it is; else (0, 4).
        """
        if self.kind != "random":
            return torch.empty(0, 4)
        return torch.rand(
            self.number - 2, 4, generator=torch.Generator().manual_seed(seed * 1_000_000_007 + item)
        )
