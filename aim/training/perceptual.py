"""LPIPS (arXiv 1801.03924): how different two images look, by SqueezeNet 1.1 or in the package
lpips.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aim.checkpoint.shards import opened
from aim.errors import AimError, InvalidInput

TAPS = (1, 4, 7, 9, 10, 11, 12)  # layers of SqueezeNet's features that are compared
PACKAGED = {"lpips-vgg": "vgg", "lpips-alex": "alex"}  # what the package lpips calls them
SMALLEST = 17  # pixels a side, of which the last layer sees one
_FIRE = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)} | {
    9: (256, 48, 192), 10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256),
}  # fmt: skip


class Fire(nn.Module):
    """SqueezeNet's block: a narrow 1x1 convolution, then 1x1 and 3x3 side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) -> (B, 2 * expanded, h, w)."""
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


class LPIPS(nn.Module):
    """The distance of two images in the features of SqueezeNet 1.1, weighted as people see it."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        pool = {i: nn.MaxPool2d(3, 2, ceil_mode=True) for i in (2, 5, 8)}
        layers: dict[int, nn.Module] = {0: nn.Conv2d(3, 64, 3, 2), 1: nn.ReLU()} | pool
        layers |= {i: Fire(*sizes) for i, sizes in _FIRE.items()}
        self.features = nn.Sequential(*(layers[i] for i in range(13)))
        widths = (64, 128, 256, 384, 384, 512, 512)
        self.lins = nn.ParameterList(nn.Parameter(torch.empty(1, c, 1, 1)) for c in widths)
        shift, scale = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
        self.register_buffer("shift", torch.tensor(shift).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(scale).view(3, 1, 1), persistent=False)

    @classmethod
    def load(cls, path: Path) -> LPIPS:
        """From a file of SqueezeNet's features (torchvision's names) and LPIPS's linear weights
        (``lin<i>``). InvalidInput for another file.
        """
        model = cls()
        with opened(path) as file:
            names = [n for n in file.keys() if not n.startswith("classifier.")]  # noqa: SIM118
            found = {name: file.get_tensor(name).float() for name in names}
        state = {
            f"lins.{n[3]}" if n.startswith("lin") else n: weight for n, weight in found.items()
        }
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise InvalidInput(
                f"{path} does not hold SqueezeNet's features and LPIPS's weights ({error})"
            ) from error
        return model.eval().requires_grad_(False)

    def taps(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [-1, 1] -> features of each tap, of unit length over channels."""
        if min(images.shape[2:]) < SMALLEST:
            size = "x".join(map(str, images.shape[:1:-1]))
            raise InvalidInput(f"images have {size} pixels; LPIPS needs at least {SMALLEST} a side")
        x, out = (images - self.shift) / self.scale, []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in TAPS:
                out.append(F.normalize(x.float(), dim=1, eps=1e-10).to(x.dtype))
        return out

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """Two batches (B, 3, H, W) in [-1, 1] -> distances (B,), differentiable in ``images``."""
        with torch.no_grad():
            wanted = self.taps(others)
        found = zip(self.taps(images), wanted, self.lins, strict=True)
        return torch.stack(
            [((f - w).square() * lin).sum(1).float().mean((1, 2)) for f, w, lin in found]
        ).sum(0)


class PackagedLPIPS(nn.Module):
    """LPIPS as the package lpips has it, one of ``PACKAGED``; torchvision fetches the network's own
    weights at first use. AimError where a package is not here.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            package: Any = importlib.import_module("lpips")
        except ImportError as error:
            raise AimError(
                f"{name} needs the package lpips, which is not here ({error}): pip install lpips, "
                "or give a file"
            ) from error
        self.network = package.LPIPS(net=PACKAGED[name], verbose=False)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """As of ``LPIPS``."""
        return self.network(images, others).flatten()


def load_lpips(name: str | Path) -> LPIPS | PackagedLPIPS:
    """One of ``PACKAGED``, else from a file; errors as of both."""
    return PackagedLPIPS(str(name)) if str(name) in PACKAGED else LPIPS.load(Path(name))
