"""Attention of several new items a row in one pass, not all of which may be kept: what
``attention.attend`` computes item by item, with one reading of the cache.

The items go into the cache itself, behind those that are settled; how many of them count, a row's
next position says. What an item must not read is selected away, since it may not be finite.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from aim.ops.triton.decode.attention import turned
from aim.ops.triton.decode.common import COLUMNS, INF, dot, options, wait
from aim.ops.triton.decode.rows import READ_AT_ONCE


@triton.jit
def _times(a, b, acc):
    """``acc + a b``: a is float32, and keeps 16 bits where b is bfloat16."""
    high = a.to(b.dtype)
    if b.dtype != tl.float32:
        acc = dot((a - high.to(tl.float32)).to(b.dtype), b, acc)
    return dot(high, b, acc)


@triton.jit
def _attend_ahead(
    projected, keys, values, turns, positions, out, scale, T,
    W: tl.constexpr, H: tl.constexpr, P: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """One head of a row's items; a block of the cache is asked for while the one before is used."""
    head, row = tl.program_id(0), tl.program_id(1)
    pos = tl.load(positions + row).to(tl.int32)
    n, s, w = tl.arange(0, P), tl.arange(0, BLOCK), tl.arange(0, COLUMNS)
    start = (row * H + head).to(tl.int64) * C * P
    keys += start
    values += start
    tile = s[:, None] * P + n[None, :]
    old = (s < pos)[:, None]
    ks, vs = tl.load(keys + tile, mask=old, other=0.0), tl.load(values + tile, mask=old, other=0.0)
    at = tl.minimum(tl.maximum(pos, 0) + w, T - 1)
    angle = turns + at[:, None] * P + (n // 2 * 2)[None, :]
    cos, sin = tl.load(angle), tl.load(angle + 1)
    wait(OVERLAP)
    if pos >= 0:
        here = n[None, :] < tl.where(w < W, P, 0)[:, None]  # (COLUMNS, P)
        line = (row * W + w)[:, None]
        new = projected + line * 3 * H * P + head * P
        q = turned(new, n[None, :], here, cos, sin) * scale
        k = turned(new + H * P, n[None, :], here, cos, sin).to(keys.dtype.element_ty)
        v = tl.load(new + 2 * H * P + n[None, :], mask=here, other=0.0)
        into = (pos + w)[:, None] * P + n[None, :]
        there = here & (pos + w < T)[:, None]
        tl.store(keys + into, k, mask=there)
        tl.store(values + into, v, mask=there)
        v = v.to(tl.float32)
        # among themselves; each with itself apart
        zero = tl.zeros((COLUMNS, COLUMNS), tl.float32)
        scores = tl.where(w[None, :] < w[:, None], _times(q, tl.trans(k), zero), -INF)
        itself = tl.sum(q * k.to(tl.float32), 1)
        top = tl.maximum(itself, tl.max(scores, 1))
        own, weights = tl.exp(itself - top), tl.exp(scores - top[:, None])
        total = own + tl.sum(weights, 1)
        finite = tl.where(tl.abs(v) < INF, v, 0.0).to(vs.dtype)  # as 0 times it is not 0
        mixed = _times(weights, finite, tl.zeros((COLUMNS, P), tl.float32))
        for begin in range(0, pos, BLOCK):
            next_ks, next_vs = ks, vs
            if BLOCK < C:
                ahead = (begin + BLOCK + s < pos)[:, None]
                next_ks = tl.load(keys + tile + (begin + BLOCK) * P, mask=ahead, other=0.0)
                next_vs = tl.load(values + tile + (begin + BLOCK) * P, mask=ahead, other=0.0)
            past = _times(q, tl.trans(ks), tl.zeros((COLUMNS, BLOCK), tl.float32))
            past = tl.where((begin + s < pos)[None, :], past, -INF)
            higher = tl.maximum(top, tl.max(past, 1))
            shrink, share = tl.exp(top - higher), tl.exp(past - higher[:, None])
            mixed = _times(share, vs, mixed * shrink[:, None])
            own, total, top = own * shrink, total * shrink + tl.sum(share, 1), higher
            ks, vs = next_ks, next_vs
        y = (mixed + own[:, None] * v) / total[:, None]
        tl.store(out + (line * H + head) * P + n[None, :], y.to(out.dtype.element_ty), mask=here)


def attend_ahead(
    projected: Tensor, keys: Tensor, values: Tensor, turns: Tensor, positions: Tensor, out: Tensor,
    width: int, overlap: bool = False,
) -> None:  # fmt: skip
    """``width`` items of every row that is not idle, at most 16, from its position on: as
    ``attention.attend``, but that projected (R width, 3 D) and out (R width, D) have a line an
    item. Items from T on, of which ``turns`` knows nothing, are not written.
    """
    rows = projected.shape[0] // width
    _, heads, capacity, size = keys.shape
    assert width <= COLUMNS.value
    block, warps = _plan(rows * heads)
    _attend_ahead[(heads, rows)](
        projected, keys, values, turns, positions, out, size**-0.5, len(turns) - 1,
        width, heads, size, capacity,
        min(block, triton.next_power_of_2(capacity)),
        **options(overlap, num_warps=warps),
    )  # fmt: skip


def _plan(programs: int) -> tuple[int, int]:
    """Items of a block, and warps of a program, as of ``attention``."""
    return (256, 8) if programs <= READ_AT_ONCE else (64, 4)
