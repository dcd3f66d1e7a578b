"""Stands in for the package of this name: random weights in its names, strides and widths."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STRIDES = {1: 2, 3: 2, 5: 2}  # of the blocks that halve
WIDTHS = (16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192)


class EfficientNet(nn.Module):
    """A convolution a block."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, 1)
        self._bn0, self._swish = nn.BatchNorm2d(32), nn.SiLU()
        pairs = enumerate(zip((32, *WIDTHS), WIDTHS, strict=False))
        self._blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(cin, cout, 3, STRIDES.get(i, 1), 1), nn.BatchNorm2d(cout))
            for i, (cin, cout) in pairs
        )
        self._fc = nn.Linear(1280, 1000)

    def extract_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1280, h, w)."""
        small = self._swish(self._bn0(self._conv_stem(images)))
        for block in self._blocks:
            small = block(small)
        return small.repeat(1, 7, 1, 1)[:, :1280]

    @classmethod
    def from_name(cls, name: str) -> EfficientNet:
        """Fresh, the same every time."""
        assert name == "efficientnet-lite0"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return cls()

    def forward(self, images: Tensor) -> Tensor:
        """Not needed here."""
        raise NotImplementedError
