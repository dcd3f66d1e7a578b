"""The products of a layer at a few dozen rows, where a step is still as long as it takes to read
the weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from aim.ops.triton.decode.common import dot, options, silu, wait

TILE, LEAST = 64, 32  # features of a program, and the fewest of one
PROGRAMS = 66  # at least, where several items of a row are read: for half of a large GPU


@triton.jit
def _product(
    x, weight, out, R, F, K: tl.constexpr, ROWS: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    EACH: tl.constexpr, STAGES: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """BN features of every row, summed over EACH pieces of BK."""
    share = tl.program_id(1)
    f, r = tl.program_id(0) * BN + tl.arange(0, BN), tl.arange(0, ROWS)
    k = share * EACH * BK + tl.arange(0, BK)
    weight += f[:, None] * K + k[None, :]
    x += r[None, :] * K + k[:, None]
    known, live = (f < F)[:, None], (r < R)[None, :]
    w = tl.load(weight, mask=known, other=0.0)  # on its way while the kernel before ends
    wait(OVERLAP)
    acc = dot(w, tl.load(x, mask=live, other=0.0), tl.zeros((BN, ROWS), tl.float32))
    for i in tl.range(1, EACH, num_stages=STAGES):
        w = tl.load(weight + i * BK, mask=known, other=0.0)
        acc = dot(w, tl.load(x + i * BK, mask=live, other=0.0), acc)
    tl.store(
        out + (share * R + r[None, :]) * F + f[:, None],
        acc.to(out.dtype.element_ty),
        mask=known & live,
    )


def product(
    x: Tensor, weight: Tensor, out: Tensor, overlap: bool = False, tile: int = TILE
) -> None:
    """``x W^T`` in shares: x (R, K) of up to ``rows.SOME`` rows, weight (F, K) -> out (S, R, F),
    whose sum over S it is; K a multiple of 16 S. ``tile`` as of ``narrow``.
    """
    rows, length = x.shape
    shares, features = len(out), weight.shape[0]
    piece, stages = _pieces(length // shares, tile)
    _product[(triton.cdiv(features, tile), shares)](
        x, weight, out, rows, features, length, max(16, triton.next_power_of_2(rows)),
        tile, piece, length // shares // piece, stages, **options(overlap, num_warps=4),
    )  # fmt: skip


def _pieces(length: int, tile: int) -> tuple[int, int]:
    """What a program sums at a time, and stages."""
    piece = 128
    while length % piece:
        piece //= 2
    return piece, 4 if tile == TILE else 6


def narrow(features: int, shares: int = 1) -> int:
    """Features of a program where several items of a row are read: fewer than ``TILE`` where that
    makes fewer than ``PROGRAMS``.
    """
    return TILE if triton.cdiv(features, TILE) * shares >= PROGRAMS else LEAST


def out_shares(features: int, length: int) -> int:
    """Into how many shares a long product of few features is cut: enough programs for a GPU."""
    shares = 4
    while length % (16 * shares):
        shares //= 2
    return shares


@triton.jit
def _sum(
    x, weight, first, known, live, start, K: tl.constexpr, ROWS: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr, EACH: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """(BN, ROWS): the product over EACH pieces of BK from ``start``; ``first`` is the first piece
    of weight, already there.
    """
    acc = dot(first, tl.load(x + start, mask=live, other=0.0), tl.zeros((BN, ROWS), tl.float32))
    for i in tl.range(1, EACH, num_stages=STAGES):
        w = tl.load(weight + start + i * BK, mask=known, other=0.0)
        acc = dot(w, tl.load(x + start + i * BK, mask=live, other=0.0), acc)
    return acc


@triton.jit
def _product_in(
    x, weight, squares, out, R, F, parts, eps,
    K: tl.constexpr, ROWS: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EACH: tl.constexpr,
    STAGES: tl.constexpr, PARTS: tl.constexpr, NORMED: tl.constexpr, GATED: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0) * BN
    f, r, k = first + tl.arange(0, BN), tl.arange(0, ROWS), tl.arange(0, BK)
    weight += f[:, None] * K + k[None, :]
    known, live = (f < F)[:, None], (r < R)[None, :]
    w = tl.load(weight, mask=known, other=0.0)  # on its way while the kernel before ends
    wait(OVERLAP)
    y = _sum(
        x + r[None, :] * K + k[:, None], weight, w, known, live, 0, K, ROWS, BN, BK, EACH, STAGES
    )
    if NORMED:
        at = tl.arange(0, PARTS)
        each = tl.load(
            squares + r[:, None] * parts + at[None, :],
            mask=(r < R)[:, None] & (at < parts)[None, :],
            other=0.0,
        )
        y *= (1.0 / tl.sqrt(tl.sum(each, 1) / K + eps))[None, :]
    if GATED:  # features come in pairs, a gate and what it gates
        a, b = tl.split(tl.permute(tl.reshape(y, (BN // 2, 2, ROWS)), (0, 2, 1)))
        half = first // 2 + tl.arange(0, BN // 2)
        here = out + r[None, :] * (F // 2) + half[:, None]
        tl.store(here, (silu(a) * b).to(out.dtype.element_ty), mask=(half < F // 2)[:, None] & live)
    else:
        tl.store(out + r[None, :] * F + f[:, None], y.to(out.dtype.element_ty), mask=known & live)


@triton.jit
def _product_out(
    x, weight, shares, arrived, residual, gain, scaled, squares, R, F,
    K: tl.constexpr, ROWS: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EACH: tl.constexpr,
    SHARES: tl.constexpr, STAGES: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One share of BN features; whoever is last of a feature's programs adds all shares up, always
    in the same order.
    """
    tile, share = tl.program_id(0), tl.program_id(1)
    f, r, k = tile * BN + tl.arange(0, BN), tl.arange(0, ROWS), tl.arange(0, BK)
    weight += f[:, None] * K + k[None, :]
    known, live = (f < F)[:, None], (r < R)[None, :]
    start = share * EACH * BK
    w = tl.load(weight + start, mask=known, other=0.0)
    by = tl.load(gain + f, mask=f < F, other=0.0)
    wait(OVERLAP)
    y = _sum(
        x + r[None, :] * K + k[:, None],
        weight,
        w,
        known,
        live,
        start,
        K,
        ROWS,
        BN,
        BK,
        EACH,
        STAGES,
    )
    here, inside = r[None, :] * F + f[:, None], known & live
    mine = shares + share * R * F + here
    tl.store(mine, y, mask=inside)
    tl.debug_barrier()  # all of the program has stored
    if tl.atomic_add(arrived + tile, 1, sem="acq_rel") == SHARES - 1:
        tl.store(arrived + tile, 0)
        y = tl.load(residual + here, mask=inside, other=0.0)
        for other in range(SHARES):
            y += tl.load(
                shares + other * R * F + here, mask=inside, other=0.0, cache_modifier=".cg"
            )
        tl.store(residual + here, y, mask=inside)
        tl.store(scaled + here, (y * by[:, None]).to(scaled.dtype.element_ty), mask=inside)
        tl.store(squares + r * tl.num_programs(0) + tile, tl.sum(y * y, 0), mask=r < R)


def product_in(
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    squares: Tensor | None = None,
    gated: bool = False,
    eps: float = 1e-5,
    overlap: bool = False,
    tile: int = TILE,
) -> None:
    """``x W^T``, divided by rms where ``squares`` (R, parts) holds the partial sums of squares
    behind it; x (R, K) of up to ``rows.SOME`` rows.

    weight (F, K), K a multiple of 16; out (R, F), or (R, F / 2) with ``gated``, where features 2i
    and 2i + 1 make ``silu(y_2i) * y_2i+1``; ``tile`` as of ``narrow``.
    """
    rows, length = x.shape
    features, parts = weight.shape[0], 1 if squares is None else squares.shape[1]
    piece, stages = _pieces(length, tile)
    _product_in[(triton.cdiv(features, tile),)](
        x, weight, x if squares is None else squares, out, rows, features, parts, eps,
        length, max(16, triton.next_power_of_2(rows)), tile, piece, length // piece, stages,
        triton.next_power_of_2(parts), squares is not None, gated,
        **options(overlap, num_warps=4),
    )  # fmt: skip


def product_out(
    x: Tensor,
    weight: Tensor,
    residual: Tensor,
    gain: Tensor,
    scaled: Tensor,
    squares: Tensor,
    arrived: Tensor,
    overlap: bool = False,
    tile: int = TILE,
) -> None:
    """``residual += x W^T``, and what the next ``product_in`` needs: scaled = residual x gain and
    squares (R, ``tiles``).

    x (R, K) of up to ``rows.SOME`` rows, weight (F, K), residual (R, F) float32, gain (F,),
    scaled (R, F); arrived (at least ``tiles``,) int32 is zero, and zero again afterwards: a buffer
    that no other stream uses meanwhile. ``tile`` as of ``narrow``.
    """
    rows, length = x.shape
    features, shares = weight.shape[0], _shares(weight.shape[0], length)
    piece, stages = _pieces(length // shares, tile)
    _product_out[(tiles(features, tile), shares)](
        x, weight, residual.new_empty(shares, rows, features), arrived, residual, gain, scaled,
        squares, rows, features,
        length, max(16, triton.next_power_of_2(rows)), tile, piece, length // shares // piece,
        shares, stages, **options(overlap, num_warps=4),
    )  # fmt: skip


def tiles(features: int, tile: int = TILE) -> int:
    """How many partial sums a row ``product_out`` leaves."""
    return triton.cdiv(features, tile)


def _shares(features: int, length: int) -> int:
    """Into how many shares ``product_out`` cuts a sum: few, since the last one to come adds them
    all up, but enough programs.
    """
    fits = [shares for shares in range(1, 6) if length % (128 * shares) == 0]
    return max((shares for shares in fits if (shares - 1) * tiles(features) < 80), default=1)


def wide_product(x: Tensor, weight: Tensor) -> Tensor:
    """``x W^T`` (R, F) in float32, summed and kept so, for any number of rows x (R, K), by a
    library.
    """
    if x.is_cuda and x.dtype != torch.float32:
        return torch.mm(x, weight.T, out_dtype=torch.float32)
    return F.linear(x, weight).float()
