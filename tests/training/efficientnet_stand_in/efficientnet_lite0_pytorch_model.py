"""Stands in for the package of this name: a file of weights."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from efficientnet_lite_pytorch import EfficientNet


class EfficientnetLite0ModelFile:
    """Where the weights are."""

    @staticmethod
    def get_model_file_path() -> str:
        """Of a file that ``torch.load`` reads."""
        path = Path(tempfile.mkdtemp()) / "efficientnet-lite0.pth"
        torch.save(EfficientNet.from_name("efficientnet-lite0").state_dict(), path)
        return str(path)
