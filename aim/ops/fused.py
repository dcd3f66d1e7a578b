"""Where fused kernels run. Asking imports none of them."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from aim.ops.scan import TRITON

CAPABILITY = 8, 0  # of the GPU: bfloat16, and memory that is copied ahead


def runs_kernels(device: torch.device) -> bool:
    """Whether this package's Triton kernels run on ``device``."""
    return (
        TRITON and device.type == "cuda" and torch.cuda.get_device_capability(device) >= CAPABILITY
    )


def fuses_group_norm(device: torch.device, widths: Iterable[int]) -> bool:
    """Whether ``ops.triton.group_norm`` runs on ``device`` for images of these numbers of channels."""
    return runs_kernels(device) and all(
        width % 32 == 0 and width & (width - 1) == 0 for width in widths
    )
