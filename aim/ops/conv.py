"""The causal depthwise convolution of a Mamba-2 mixer, over a sequence and one step at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from aim.ops.activation import silu
from aim.ops.triton import TRITON


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``silu(conv(x))`` over a whole sequence that starts empty.

    x (B, T, C), weight (C, K), bias (C,) -> (B, T, C) in x's dtype, by a Triton kernel on a GPU
    that has Triton.
    """
    if TRITON and x.is_cuda and x.stride(2) == 1:
        from aim.ops.triton.conv import convolve

        return convolve(x, weight, bias)
    return shifted_sum(x, weight, bias)


def shifted_sum(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``causal_conv`` as a sum of K shifted products, anywhere."""
    taps = weight.shape[1]
    padded = F.pad(x, (0, 0, taps - 1, 0))  # (B, T + K - 1, C)
    length = x.shape[1]
    out = bias.float().expand_as(x)
    for k in range(taps):
        out = torch.addcmul(out, padded[:, k : k + length].float(), weight[:, k].float())
    return silu(out).to(x.dtype)


def conv_step(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``silu(conv)`` of one more item. x (R, C), past (R, K - 1, C) oldest first, weight (C, K) ->
    (R, C) in x's dtype.
    """
    out = torch.addcmul(bias.float(), x.float(), weight[:, -1].float())
    for k in range(past.shape[1]):
        out = torch.addcmul(out, past[:, k].float(), weight[:, k].float())
    return silu(out).to(x.dtype)


def conv_advance(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor, idle: Tensor) -> Tensor:
    """``conv_step`` that also moves ``past`` on by ``x``, in place, except where ``idle (R,)``."""
    out = conv_step(x, past, weight, bias)
    shifted = torch.cat([past[:, 1:], x.unsqueeze(1)], 1)
    past.copy_(torch.where(idle[:, None, None], past, shifted))
    return out
