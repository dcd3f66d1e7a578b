"""Group norm with SiLU, residual sums and enlargement for images stored pixel by pixel, (B, h, w,
C), in as few passes as possible.

A norm is two passes: moments of every chunk of pixels, then the norm itself; where a sum is formed
just before it, the sum's pass takes the moments along. Biases of convolutions are added on the way.
How an image is cut into chunks depends on its size alone and nothing is summed in an order that
changes, so an image's values do not depend on its batch. ``*_reference`` are the readable twins.
Needs Triton; without gradients.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

GROUPS = 32
TILE = 8192  # values that a program of the norm itself holds at a time
PIECE = 4096  # and one that sums
WARPS = 8  # of 32 threads in a program of the norm
SUMMING = 4  # and in one that sums
STAGES = 4  # tiles on their way to a program that sums
PARTS = 128  # chunks an image is cut into, if each is at least one tile; up to twice as many


class Moments(NamedTuple):
    """Of every chunk of ``chunk`` pixels, over a group's channels; (B, chunks, GROUPS) float32
    each.
    """

    means: Tensor
    squares: Tensor  # sums of squared distances to the chunk's mean
    chunk: int


def group_norm_reference(
    x: Tensor, weight: Tensor, shift: Tensor, eps: float, silu: bool, bias: Tensor | None = None
) -> Tensor:
    """The definition: (B, h, w, C) -> the same; statistics in float32, ``bias`` (C,) is added to x
    first.
    """
    values = (x.float() if bias is None else x.float() + bias.float()).unflatten(3, (GROUPS, -1))
    variance, mean = torch.var_mean(values, (1, 2, 4), correction=0, keepdim=True)
    y = ((values - mean) / (variance + eps).sqrt()).flatten(3) * weight.float() + shift.float()
    return (F.silu(y) if silu else y).to(x.dtype)


def join_reference(
    h: Tensor, bias: Tensor | None = None, x: Tensor | None = None, enlarge: bool = False
) -> Tensor:
    """``x + h + bias``, enlarged twice each way if asked: (B, h, w, C), bias (C,) -> (B, h, w, C)
    or (B, 2h, 2w, C).
    """
    total = h.float() + (0 if bias is None else bias.float()) + (0 if x is None else x.float())
    return (total.repeat_interleave(2, 1).repeat_interleave(2, 2) if enlarge else total).to(h.dtype)


@triton.jit
def _per_group(values, G: tl.constexpr, C: tl.constexpr):
    """(C,) -> sums (G,)."""
    return tl.sum(tl.reshape(values, (G, C // G)), 1)


@triton.jit
def _per_channel(values, G: tl.constexpr, C: tl.constexpr):
    """(G,) -> each repeated for its channels, (C,)."""
    return tl.reshape(tl.broadcast_to(values[:, None], (G, C // G)), (C,))


@triton.jit
def _total(
    h, bias, x, out, means, squares, P, W,
    C: tl.constexpr, G: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr,
    STAGES: tl.constexpr, BIAS: tl.constexpr, ADD: tl.constexpr, STORE: tl.constexpr,
    ENLARGE: tl.constexpr,
):  # fmt: skip
    """One chunk of TILES * BLOCK pixels of h [+ bias] [+ x]: stored, enlarged or not, and its
    moments.
    """
    part, at = tl.program_id(0), tl.program_id(1).to(tl.int64)
    channels = tl.arange(0, C)
    image = at * P * C
    h, x, out = h + image, x + image, out + image * (4 if ENLARGE else 1)
    start = part * TILES * BLOCK
    # distances to one pixel of the chunk lose nothing where values are large; each channel has its
    # own
    near = tl.load(h + start * C + channels).to(tl.float32)
    if BIAS:
        near += tl.load(bias + channels).to(tl.float32)
    if ADD:
        near += tl.load(x + start * C + channels).to(tl.float32)
    if STORE:
        near = near.to(out.dtype.element_ty).to(tl.float32)
    total = tl.zeros((BLOCK, C), tl.float32)
    square = tl.zeros((BLOCK, C), tl.float32)
    for tile in tl.range(TILES, num_stages=STAGES):
        pixels = start + tile * BLOCK + tl.arange(0, BLOCK)
        inside = pixels[:, None] < P
        where = pixels[:, None] * C + channels[None, :]
        value = tl.load(h + where, mask=inside, other=0.0).to(tl.float32)
        if BIAS:
            value += tl.load(bias + channels).to(tl.float32)[None, :]
        if ADD:
            value += tl.load(x + where, mask=inside, other=0.0).to(tl.float32)
        if STORE:
            rounded = value.to(out.dtype.element_ty)
            value = rounded.to(tl.float32)
            if ENLARGE:
                corner = (pixels // W) * 4 * W + (pixels % W) * 2  # in an image of twice the width
                into = out + corner[:, None] * C + channels[None, :]
                tl.store(into, rounded, mask=inside)
                tl.store(into + C, rounded, mask=inside)
                tl.store(into + 2 * W * C, rounded, mask=inside)
                tl.store(into + 2 * W * C + C, rounded, mask=inside)
            else:
                tl.store(out + where, rounded, mask=inside)
        if not ENLARGE:
            apart = tl.where(inside, value - near[None, :], 0.0)
            total += apart
            square += apart * apart
    if not ENLARGE:
        count = tl.minimum(P - start, TILES * BLOCK).to(tl.float32)
        off = tl.sum(total, 0) / count  # of the channel's mean from ``near``
        spread = tl.sum(square, 0) - off * off * count
        mean = _per_group(near + off, G, C) / (C // G)
        step = near + off - _per_channel(mean, G, C)
        into = (at * tl.num_programs(0) + part) * G + tl.arange(0, G)
        tl.store(means + into, mean)
        tl.store(squares + into, _per_group(spread + step * step * count, G, C))


@triton.jit
def _finish(
    means, squares, weight, centre, scale, P, PARTS, CHUNK, eps, C: tl.constexpr, G: tl.constexpr,
    MOST: tl.constexpr
):  # fmt: skip
    """The moments of one image's chunks -> what is subtracted from a channel and what it is
    multiplied by.
    """
    at = tl.program_id(0).to(tl.int64)
    parts, channels = tl.arange(0, MOST), tl.arange(0, C)
    inside = parts[:, None] < PARTS
    where = (at * PARTS + parts[:, None]) * G + tl.arange(0, G)[None, :]
    mine = tl.load(means + where, mask=inside, other=0.0)
    count = tl.minimum(tl.maximum(P - parts * CHUNK, 0), CHUNK).to(tl.float32) * (C // G)
    total = tl.sum(count, 0)
    near = tl.load(means + at * PARTS * G + tl.arange(0, G))  # sums of distances to it lose nothing
    mean = near + tl.sum(tl.where(inside, mine - near[None, :], 0.0) * count[:, None], 0) / total
    apart = tl.where(inside, mine - mean[None, :], 0.0)
    square = tl.sum(
        tl.load(squares + where, mask=inside, other=0.0) + apart * apart * count[:, None], 0
    )
    factor = _per_channel(1.0 / tl.sqrt(square / total + eps), G, C) * tl.load(
        weight + channels
    ).to(tl.float32)
    tl.store(centre + at * C + channels, _per_channel(mean, G, C))
    tl.store(scale + at * C + channels, factor)


@triton.jit
def _apply(
    x,
    bias,
    centre,
    scale,
    shift,
    out,
    P,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
    BIAS: tl.constexpr,
    SILU: tl.constexpr,
):
    """BLOCK pixels: (x [+ bias] - centre) * scale + shift, through SiLU if asked."""
    part, at = tl.program_id(0), tl.program_id(1).to(tl.int64)
    channels, pixels = tl.arange(0, C), part * BLOCK + tl.arange(0, BLOCK)
    inside = pixels[:, None] < P
    where = pixels[:, None] * C + channels[None, :]
    x, out = x + at * P * C, out + at * P * C
    middle, factor = (
        tl.load(centre + at * C + channels)[None, :],
        tl.load(scale + at * C + channels)[None, :],
    )
    y = tl.load(x + where, mask=inside, other=0.0).to(tl.float32)
    if BIAS:
        y += tl.load(bias + channels).to(tl.float32)[None, :]
    y = (y - middle) * factor + tl.load(shift + channels).to(tl.float32)[None, :]
    if SILU:
        y = y * tl.sigmoid(y)
    tl.store(out + where, y.to(out.dtype.element_ty), mask=inside)


def _cut(pixels: int, channels: int) -> tuple[int, int, int]:
    """Pixels a tile, tiles a chunk and chunks an image where it is summed: of the image's size
    alone.
    """
    block = max(1, PIECE // channels)
    tiles = max(1, triton.cdiv(pixels, block) // PARTS)
    return block, tiles, triton.cdiv(pixels, block * tiles)


def _check(x: Tensor) -> None:
    channels = x.shape[3]
    assert (
        x.is_contiguous()
        and channels % GROUPS == 0
        and channels & (channels - 1) == 0
        and x.stride(0) < 2**31
    )


def _run_total(
    h: Tensor, bias: Tensor | None, x: Tensor | None, out: Tensor | None, enlarge: bool
) -> Moments | None:
    _check(h)
    rows, height, width, channels = h.shape
    assert x is None or (x.shape == h.shape and x.is_contiguous())
    block, tiles, parts = _cut(height * width, channels)
    means, squares = h.new_empty(2, rows, parts, GROUPS, dtype=torch.float32)
    _total[(parts, rows)](
        h, h if bias is None else bias, h if x is None else x, h if out is None else out, means,
        squares, height * width, width,
        channels, GROUPS, block, tiles, STAGES, bias is not None, x is not None, out is not None,
        enlarge, num_warps=SUMMING,
    )  # fmt: skip
    return None if enlarge else Moments(means, squares, block * tiles)


def moments(h: Tensor, bias: Tensor | None = None) -> Moments:
    """Of ``h + bias``: h (B, h, w, C) contiguous, C a power of two and at least GROUPS, bias
    (C,).
    """
    found = _run_total(h, bias, None, None, False)
    assert found is not None
    return found


def join(h: Tensor, bias: Tensor | None = None, x: Tensor | None = None) -> tuple[Tensor, Moments]:
    """``join_reference`` in one pass, with the moments of what comes out; shapes as there,
    contiguous, C as in ``moments``.
    """
    out = torch.empty_like(h)
    found = _run_total(h, bias, x, out, False)
    assert found is not None
    return out, found


def join_enlarged(h: Tensor, bias: Tensor | None = None, x: Tensor | None = None) -> Tensor:
    """``join_reference`` with ``enlarge`` in one pass; as ``join``."""
    rows, height, width, channels = h.shape
    out = h.new_empty(rows, 2 * height, 2 * width, channels)
    _run_total(h, bias, x, out, True)
    return out


def group_norm(
    x: Tensor,
    found: Moments,
    weight: Tensor,
    shift: Tensor,
    eps: float,
    silu: bool = True,
    bias: Tensor | None = None,
) -> Tensor:
    """``group_norm_reference`` of x (B, h, w, C) whose moments, with ``bias``, are known; x
    contiguous, C as in ``moments``.
    """
    _check(x)
    rows, height, width, channels = x.shape
    pixels, parts = height * width, found.means.shape[1]
    centre, scale = x.new_empty(2, rows, channels, dtype=torch.float32)
    _finish[(rows,)](
        found.means, found.squares, weight, centre, scale, pixels, parts, found.chunk, eps,
        channels, GROUPS, triton.next_power_of_2(parts), num_warps=WARPS,
    )  # fmt: skip
    out = torch.empty_like(x)
    block = max(1, TILE // channels)
    _apply[(triton.cdiv(pixels, block), rows)](
        x,
        x if bias is None else bias,
        centre,
        scale,
        shift,
        out,
        pixels,
        channels,
        block,
        bias is not None,
        silu,
        num_warps=WARPS,
    )
    return out
