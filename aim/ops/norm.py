"""Root-mean-square norms, computed in float32 whatever comes in."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from aim.ops.activation import silu


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimension; float32 out (..., D)."""
    return F.rms_norm(x.float(), (x.shape[-1],), weight, eps)


def gated_rms_norm(y: Tensor, z: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """RMS norm of ``y * silu(z)``, as Mamba-2 applies it before its output projection; float32 out
    (..., D).
    """
    return rms_norm(y.float() * silu(z.float()), weight, eps)
