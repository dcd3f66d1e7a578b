"""Activations whose bits do not depend on where an element lies.

On a CPU, PyTorch's fused ``silu`` and ``softplus`` round differently in the vector loop and in the
scalar loop that handles what is left over, so an element's value depends on how many others share
its tensor and on the number of threads. ``exp`` and ``log1p`` do not, so they are used there: one
seed is to give one image, alone and in any batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def silu(x: Tensor) -> Tensor:
    """``x * sigmoid(x)``, elementwise."""
    return x / (torch.exp(-x) + 1) if x.device.type == "cpu" else F.silu(x)


def softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x))``, elementwise, without overflow."""
    return (
        x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))
        if x.device.type == "cpu"
        else F.softplus(x)
    )
