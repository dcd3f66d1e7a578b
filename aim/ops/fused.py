"""Where fused kernels run. Asking imports none of them."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from aim.ops.scan import TRITON


def fuses_group_norm(device: torch.device, widths: Iterable[int]) -> bool:
    """Whether ``ops.group_norm`` runs on ``device`` for images of these numbers of channels."""
    if not TRITON or device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    return all(width % 32 == 0 and width & (width - 1) == 0 for width in widths)
