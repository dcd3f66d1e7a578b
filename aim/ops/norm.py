"""Root-mean-square norms, computed in float32 whatever comes in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aim.ops.activation import silu


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimension; float32 out (..., D)."""
    return F.rms_norm(x.float(), (x.shape[-1],), weight, eps)


def gated_rms_norm(y: Tensor, z: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """RMS norm of ``y * silu(z)``, as Mamba-2 applies it before its output projection; float32 out (..., D)."""
    return rms_norm(y.float() * silu(z.float()), weight, eps)


def root_mean_square(x: Tensor, eps: float = 1e-5) -> Tensor:
    """``sqrt(mean(x^2) + eps)`` over the last dimension of float32 x (..., D) -> (..., 1): what ``rms_norm`` divides by.

    On a CPU two thirds of the time of PyTorch's own norm go into its many small calls.
    """
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return size.square_().mul_(1 / x.shape[-1]).add_(eps).sqrt_()
