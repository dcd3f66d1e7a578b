"""The causal depthwise convolution over whole sequences by Triton kernels, for training: every item
is read and written once.

``ops.conv.causal_conv`` is the readable twin. Needs Triton; ``ops.conv`` imports it when it does.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

ITEMS, CHANNELS = 32, 128  # of one program
# of one that sums over items, in as few threads as will do
SUM_ITEMS, SUM_CHANNELS, SUM_WARPS = 32, 64, 1


def _alignment(*strides: int) -> int:
    """The power of two up to 16 that divides all strides: Triton sees 16 by itself, and 8 bf16
    numbers are one load.
    """
    return math.gcd(16, *strides)


@triton.jit
def _shifted(base, stride_b, stride_t, at, items, channels, T, C, by, ALIGN: tl.constexpr):
    """x or dy ``by`` items later, (items, channels) float32, zero outside."""
    stride_b, stride_t = tl.multiple_of(stride_b, ALIGN), tl.multiple_of(stride_t, ALIGN)
    t = items + by
    inside = (t[:, None] >= 0) & (t[:, None] < T) & (channels[None, :] < C)
    return tl.load(
        base + at * stride_b + t[:, None] * stride_t + channels[None, :], mask=inside, other=0.0
    ).to(tl.float32)


@triton.jit
def _sums(
    x, weight, bias, x_b, x_t, at, items, channels, T, C, K: tl.constexpr, ALIGN: tl.constexpr
):
    """The convolution before its activation."""
    acc = tl.load(bias + channels, mask=channels < C, other=0.0)[None, :].to(tl.float32)
    for k in tl.static_range(K):
        w = tl.load(weight + channels * K + k, mask=channels < C, other=0.0).to(tl.float32)
        acc += w[None, :] * _shifted(x, x_b, x_t, at, items, channels, T, C, k - (K - 1), ALIGN)
    return acc


@triton.jit
def _forward(
    x,
    weight,
    bias,
    y,
    T,
    C,
    x_b,
    x_t,
    K: tl.constexpr,
    ALIGN: tl.constexpr,
    ITEMS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    at = tl.program_id(2).to(tl.int64)
    items = tl.program_id(1) * ITEMS + tl.arange(0, ITEMS)
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    acc = _sums(x, weight, bias, x_b, x_t, at, items, channels, T, C, K, ALIGN)
    out = y + at * T * C + items[:, None] * C + channels[None, :]
    tl.store(
        out,
        (acc * tl.sigmoid(acc)).to(y.dtype.element_ty),
        mask=(items[:, None] < T) & (channels[None, :] < C),
    )


@triton.jit
def _grad_sums(
    x, weight, bias, dy, ds, dweight, dbias, T, C, x_b, x_t, y_b, y_t,
    K: tl.constexpr, ALIGN: tl.constexpr, ITEMS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Gradient of the convolution before its activation, and of weight and bias summed over the
    items of this program.
    """
    at = tl.program_id(2).to(tl.int64)
    items = tl.program_id(1) * ITEMS + tl.arange(0, ITEMS)
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    program = at * tl.num_programs(1) + tl.program_id(1)
    sums = _sums(x, weight, bias, x_b, x_t, at, items, channels, T, C, K, ALIGN)
    gate = tl.sigmoid(sums)
    grad = (
        _shifted(dy, y_b, y_t, at, items, channels, T, C, 0, ALIGN) * gate * (1 + sums * (1 - gate))
    )
    tl.store(dbias + program * C + channels, tl.sum(grad, 0), mask=channels < C)
    for k in tl.static_range(K):
        xs = _shifted(x, x_b, x_t, at, items, channels, T, C, k - (K - 1), ALIGN)
        tl.store(
            dweight + (program * C + channels) * K + k, tl.sum(xs * grad, 0), mask=channels < C
        )
    out = ds + at * T * C + items[:, None] * C + channels[None, :]
    tl.store(out, grad.to(ds.dtype.element_ty), mask=(items[:, None] < T) & (channels[None, :] < C))


@triton.jit
def _grad_x(
    ds,
    weight,
    dx,
    T,
    C,
    K: tl.constexpr,
    ALIGN: tl.constexpr,
    ITEMS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Gradient of x: item t reaches the sums of items t to t + K - 1."""
    at = tl.program_id(2).to(tl.int64)
    items = tl.program_id(1) * ITEMS + tl.arange(0, ITEMS)
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    acc = tl.zeros((ITEMS, CHANNELS), tl.float32)
    for k in tl.static_range(K):
        w = tl.load(weight + channels * K + k, mask=channels < C, other=0.0).to(tl.float32)
        acc += w[None, :] * _shifted(ds, T * C, C, at, items, channels, T, C, K - 1 - k, ALIGN)
    out = dx + at * T * C + items[:, None] * C + channels[None, :]
    tl.store(out, acc.to(dx.dtype.element_ty), mask=(items[:, None] < T) & (channels[None, :] < C))


def _grid(x: Tensor, items: int = ITEMS, channels: int = CHANNELS) -> tuple[int, int, int]:
    return triton.cdiv(x.shape[2], channels), triton.cdiv(x.shape[1], items), x.shape[0]


@custom_op("aim::causal_conv", mutates_args=())
def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``ops.conv.causal_conv``, differentiable: x (B, T, C) with adjacent channels, weight (C, K),
    bias (C,) -> (B, T, C).
    """
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    length, channels = x.shape[1:]
    strides = x.stride(0), x.stride(1)
    _forward[_grid(x)](
        x,
        weight.contiguous(),
        bias,
        y,
        length,
        channels,
        *strides,
        weight.shape[1],
        _alignment(*strides),
        ITEMS,
        CHANNELS,
    )
    return y


@convolve.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@custom_op("aim::causal_conv_backward", mutates_args=())
def convolve_backward(
    x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``convolve``: of x, and of weight and bias in float32."""
    length, channels, taps = *x.shape[1:], weight.shape[1]
    dy = dy if dy.stride(2) == 1 else dy.contiguous()
    grid = _grid(x, SUM_ITEMS, SUM_CHANNELS)
    weight = weight.contiguous()
    dx, ds = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    dweight = x.new_empty(grid[1] * grid[2], channels, taps, dtype=torch.float32)
    dbias = x.new_empty(grid[1] * grid[2], channels, dtype=torch.float32)
    strides = x.stride(0), x.stride(1), dy.stride(0), dy.stride(1)
    tile = taps, _alignment(*strides), SUM_ITEMS, SUM_CHANNELS
    _grad_sums[grid](
        x,
        weight,
        bias,
        dy,
        ds,
        dweight,
        dbias,
        length,
        channels,
        *strides,
        *tile,
        num_warps=SUM_WARPS,
    )
    _grad_x[_grid(x)](ds, weight, dx, length, channels, taps, _alignment(channels), ITEMS, CHANNELS)
    return dx, dweight.sum(0), dbias.sum(0)


@convolve_backward.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape),
        weight.new_empty(weight.shape, dtype=torch.float32),
        bias.new_empty(bias.shape, dtype=torch.float32),
    )


def _save(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor
) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(
    ctx: torch.autograd.function.FunctionCtx, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    x, weight, bias = ctx.saved_tensors  # type: ignore[attr-defined]
    dx, dweight, dbias = torch.ops.aim.causal_conv_backward(x, weight, bias, dy)
    return dx, dweight.to(weight.dtype), dbias.to(bias.dtype)


convolve.register_autograd(_differentiate, setup_context=_save)
