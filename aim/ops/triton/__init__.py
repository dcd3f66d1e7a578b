"""Triton kernels, each file named as its readable twin in ``aim.ops``, and where they run. Asking
imports none of them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

import torch

# importing it takes a second: only where it runs
TRITON = importlib.util.find_spec("triton") is not None
CAPABILITY = 8, 0  # of the GPU: bfloat16, and memory that is copied ahead


def runs_kernels(device: torch.device) -> bool:
    """Whether this package's Triton kernels run on ``device``."""
    return (
        TRITON and device.type == "cuda" and torch.cuda.get_device_capability(device) >= CAPABILITY
    )


def fuses_group_norm(device: torch.device, widths: Iterable[int]) -> bool:
    """Whether ``group_norm`` runs on ``device`` for images of these numbers of channels."""
    return runs_kernels(device) and all(
        width % 32 == 0 and width & (width - 1) == 0 for width in widths
    )
