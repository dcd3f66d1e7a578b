"""The projections of a layer at one or two rows, where a step is as long as it takes to read the
weights once.

Both read each weight once and do in the same kernel what lies around the product, so that a layer
is four kernels. What a norm divides by is a sum over a row that no program has while it works: it
is applied after the product, from partial sums that the kernel before left. With g = norm weight x
(1 + scale), ``W (rms_norm(r) (1 + scale) + shift) = (W (r g)) / rms(r) + W shift``, and the last
term depends on the class alone; without modulation there is none, and g is the norm's weight.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from aim.ops.triton.decode.common import options, silu, wait


@triton.jit
def _piece(
    weight, n, out_features, step: tl.constexpr, K: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr
):
    """Columns ``step * BK ...`` of rows n of weight (out_features, K), zero beyond either: (BN,
    BK).
    """
    k = step * BK + tl.arange(0, BK)
    if step * BK >= K:
        return tl.zeros((BN, BK), weight.dtype.element_ty)
    return tl.load(
        weight + n[:, None] * K + k[None, :],
        mask=(n[:, None] < out_features) & (k[None, :] < K),
        other=0.0,
    )


@triton.jit
def _row_piece(x, step, K: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """A piece of a row of x, for every output feature (BN, BK): each thread loads what it needs,
    nothing is exchanged.
    """
    k = step * BK + tl.broadcast_to(tl.arange(0, BK)[None, :], (BN, BK))
    return tl.load(x + k, mask=k < K, other=0.0)


@triton.jit
def _row(x, K: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """A row of x, in up to four pieces."""
    return (
        _row_piece(x, 0, K, BN, BK),
        _row_piece(x, 1, K, BN, BK),
        _row_piece(x, 2, K, BN, BK),
        _row_piece(x, 3, K, BN, BK),
    )


@triton.jit
def _dot(w0, w1, w2, w3, x0, x1, x2, x3, K: tl.constexpr, BK: tl.constexpr):
    """(BN,) float32: the row with each row of weight, both in pieces."""
    acc = w0.to(tl.float32) * x0.to(tl.float32)
    if BK < K:
        acc += w1.to(tl.float32) * x1.to(tl.float32)
    if 2 * BK < K:
        acc += w2.to(tl.float32) * x2.to(tl.float32)
    if 3 * BK < K:
        acc += w3.to(tl.float32) * x3.to(tl.float32)
    return tl.sum(acc, 1)


@triton.jit
def _pair(one, two, ROWS: tl.constexpr):
    """Two rows (BN,) as one tensor (ROWS, BN)."""
    return tl.where((tl.arange(0, ROWS) == 0)[:, None], one[None, :], two[None, :])


@triton.jit
def _sums(squares, parts, r, R, PARTS: tl.constexpr):
    """Partial sums of squares (ROWS, PARTS) of each row, zero beyond ``parts``."""
    at = tl.arange(0, PARTS)
    return tl.load(
        squares + r[:, None] * parts + at[None, :],
        mask=(r < R)[:, None] & (at < parts)[None, :],
        other=0.0,
    )


@triton.jit
def _pieces(weight, n, out_features, K: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """Rows n of weight, in up to four pieces."""
    return (
        _piece(weight, n, out_features, 0, K, BN, BK),
        _piece(weight, n, out_features, 1, K, BN, BK),
        _piece(weight, n, out_features, 2, K, BN, BK),
        _piece(weight, n, out_features, 3, K, BN, BK),
    )


@triton.jit
def _linear_in(
    x, weight, squares, offset, offset_stride, out, R, out_features, parts, eps,
    ROWS: tl.constexpr, K: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PARTS: tl.constexpr,
    NORMED: tl.constexpr, SHIFTED: tl.constexpr, GATED: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    r = tl.arange(0, ROWS)
    n = tl.program_id(0) * BN + tl.arange(0, BN)
    inside = (r < R)[:, None] & (n < out_features)[None, :]
    # on their way while the kernel before ends
    w0, w1, w2, w3 = _pieces(weight, n, out_features, K, BN, BK)
    add = tl.zeros((ROWS, BN), tl.float32)
    if SHIFTED:
        add = tl.load(offset + r[:, None] * offset_stride + n[None, :], mask=inside, other=0.0).to(
            tl.float32
        )
    wait(OVERLAP)
    a0, a1, a2, a3 = _row(x, K, BN, BK)
    b0, b1, b2, b3 = _row(x + K * (ROWS - 1), K, BN, BK)
    scale = tl.full((ROWS,), 1.0, tl.float32)
    if NORMED:
        scale = 1.0 / tl.sqrt(tl.sum(_sums(squares, parts, r, R, PARTS), 1) / K + eps)
    for start in range(tl.program_id(0) * BN, out_features, tl.num_programs(0) * BN):
        ahead = n + tl.num_programs(0) * BN
        v0, v1, v2, v3 = _pieces(weight, ahead, out_features, K, BN, BK)
        inside = (r < R)[:, None] & (ahead < out_features)[None, :]
        after = add
        if SHIFTED:
            after = tl.load(
                offset + r[:, None] * offset_stride + ahead[None, :], mask=inside, other=0.0
            ).to(tl.float32)
        one = _dot(w0, w1, w2, w3, a0, a1, a2, a3, K, BK)
        two = one
        if ROWS == 2:
            two = _dot(w0, w1, w2, w3, b0, b1, b2, b3, K, BK)
        y = _pair(one, two, ROWS) * scale[:, None] + add
        if GATED:  # features come in pairs, a gate and what it gates
            a, b = tl.split(tl.reshape(y, (ROWS, BN // 2, 2)))
            m = start // 2 + tl.arange(0, BN // 2)
            here = out + r[:, None] * (out_features // 2) + m[None, :]
            tl.store(
                here,
                (silu(a) * b).to(out.dtype.element_ty),
                mask=(r < R)[:, None] & (m < out_features // 2)[None, :],
            )
        else:
            here = out + r[:, None] * out_features + n[None, :]
            tl.store(
                here,
                y.to(out.dtype.element_ty),
                mask=(r < R)[:, None] & (n < out_features)[None, :],
            )
        n, add, w0, w1, w2, w3 = ahead, after, v0, v1, v2, v3


@triton.jit
def _linear_out(
    u, weight, squares, residual, cond, gate, gain, scaled, sums, cond_stride, R, parts, eps,
    ROWS: tl.constexpr, K: tl.constexpr, D: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    PARTS: tl.constexpr, NORMED: tl.constexpr, GATED: tl.constexpr, NEXT: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    n = program * BN + tl.arange(0, BN)
    r = tl.arange(0, ROWS)
    inside = (r < R)[:, None] & (n < D)[None, :]
    where = r[:, None] * D + n[None, :]
    own = cond + r[:, None].to(tl.int64) * cond_stride + n[None, :]
    w0, w1, w2, w3 = _pieces(weight, n, D, K, BN, BK)
    through = tl.full((ROWS, BN), 1.0, tl.float32)
    if GATED:
        through = tl.load(own + gate, mask=inside, other=0.0).to(tl.float32)
    by = through
    if NEXT:
        by = tl.load(own + gain, mask=inside, other=0.0).to(tl.float32)
    wait(OVERLAP)
    a0, a1, a2, a3 = _row(u, K, BN, BK)
    b0, b1, b2, b3 = _row(u + K * (ROWS - 1), K, BN, BK)
    before = tl.load(residual + where, mask=inside, other=0.0)
    scale = tl.full((ROWS,), 1.0, tl.float32)
    if NORMED:
        scale = 1.0 / tl.sqrt(tl.sum(_sums(squares, parts, r, R, PARTS), 1) / K + eps)
    one = _dot(w0, w1, w2, w3, a0, a1, a2, a3, K, BK)
    two = one
    if ROWS == 2:
        two = _dot(w0, w1, w2, w3, b0, b1, b2, b3, K, BK)
    y = before + _pair(one, two, ROWS) * scale[:, None] * through
    tl.store(residual + where, y, mask=inside)
    if NEXT:
        tl.store(scaled + where, (y * by).to(scaled.dtype.element_ty), mask=inside)
        tl.store(sums + r * tl.num_programs(0) + program, tl.sum(y * y, 1), mask=r < R)


WARPS, OUT_WARPS = 8, 4  # of a program of ``linear_in``, of ``linear_out``
# of a thread at most, so that as many programs run at once as there should
REGISTERS, OUT_REGISTERS = 128, 168
RESIDENT = 2  # programs of ``linear_in`` that a multiprocessor has registers for
# output features of a program in ``linear_out``: few enough for all programs to run at once
OUT_TILE = 4


def _in_tile(length: int) -> int:
    """Output features of a program's tile in ``linear_in``: 24 KB of weights, two of which a
    program holds at a time.
    """
    return 8 if length > 1024 else 16


def _split(length: int) -> int:
    """The length of a piece of weight."""
    return max(16, triton.next_power_of_2(triton.cdiv(length, 4)))


def _programs(tiles: int, device: torch.device) -> int:
    """How many programs share ``tiles``: no more than run at once, each with as many tiles as the
    next.
    """
    return triton.cdiv(tiles, triton.cdiv(tiles, RESIDENT * _processors(device)))


@lru_cache(maxsize=8)
def _processors(device: torch.device) -> int:
    return (
        torch.cuda.get_device_properties(device).multi_processor_count
        if device.type == "cuda"
        else 2
    )


def out_parts(d_model: int) -> int:
    """How many partial sums a row ``linear_out`` leaves."""
    return triton.cdiv(d_model, OUT_TILE)


def linear_in(
    x: Tensor, weight: Tensor, out: Tensor, squares: Tensor | None = None,
    offset: Tensor | None = None, eps: float = 1e-5, overlap: bool = False, gated: bool = False,
) -> None:  # fmt: skip
    """``out = x W^T``, or ``x W^T / rms + offset`` where ``squares`` (R, parts) holds the partial
    sums of squares behind rms.

    x (R, K) of one or two rows, weight (F, K), out (R, F) of any dtype; offset (S, F) of any dtype,
    a row may be strided. With ``gated`` features 2i and 2i + 1 make ``silu(y_2i) * y_2i+1``, and
    out is (R, F / 2). Computes in float32.
    """
    rows, length = x.shape
    features, block = weight.shape[0], _in_tile(length)
    parts = squares.shape[1] if squares is not None else 1
    _linear_in[(_programs(triton.cdiv(features, block), x.device),)](
        x, weight, x if squares is None else squares, x if offset is None else offset,
        offset.stride(0) if offset is not None else 0, out, rows, features, parts, eps,
        rows, length, block, _split(length), triton.next_power_of_2(parts),
        squares is not None, offset is not None, gated,
        **options(overlap, num_warps=WARPS, maxnreg=REGISTERS),
    )  # fmt: skip


def linear_out(
    u: Tensor, weight: Tensor, squares: Tensor | None, residual: Tensor, cond: Tensor,
    gate: int | None, gain: int | None, scaled: Tensor, sums: Tensor, eps: float = 1e-5,
    overlap: bool = False,
) -> None:  # fmt: skip
    """``residual += gate * (u W^T) / rms(squares)``, and what the next ``linear_in`` needs.

    u (R, I) of one or two rows, weight (D, I), squares (R, parts) or None for no division, residual
    (R, D) float32, cond (S, C) of any dtype, its rows strided or all the same, with the gate (None
    for 1) and the next gain at columns ``gate`` and ``gain`` (None after the last layer). Writes
    scaled (R, D) = residual x gain and sums (R, ``out_parts``), the partial sums of squares of the
    new residual.
    """
    rows, length = u.shape
    width, parts = weight.shape[0], 1 if squares is None else squares.shape[1]
    _linear_out[(out_parts(width),)](
        u, weight, residual if squares is None else squares, residual, cond, gate or 0, gain or 0,
        scaled, sums, cond.stride(0), rows, parts, eps,
        rows, length, width, OUT_TILE, _split(length), triton.next_power_of_2(parts),
        squares is not None, gate is not None, gain is not None,
        **options(overlap, num_warps=OUT_WARPS, maxnreg=OUT_REGISTERS),
    )  # fmt: skip
