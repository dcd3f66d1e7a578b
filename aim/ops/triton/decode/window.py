"""Kernels of one step's mixing: ``ops.window`` says what they compute."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from aim.ops.triton.decode import rows as table
from aim.ops.triton.decode.common import dot, options, silu, wait
from aim.ops.triton.decode.window_take import SHARE, take
from aim.ops.window import MixWeights, Window


@triton.jit
def _kept(l, decay, s, count):
    """The decay of the items s (s,) of one head up to now, zero from ``count`` on."""
    old = s < count
    return tl.where(old, tl.exp(l - tl.load(decay + s, mask=old, other=0.0)), 0.0)


@triton.jit
def _one(values, j, HEADS: tl.constexpr):
    """Element j of values (HEADS,)."""
    return tl.sum(tl.where(tl.arange(0, HEADS) == j, values, 0.0), 0)


@triton.jit
def _times(tile, vector, acc):
    """``acc (P, 16) + tile (P, S) @ vector (S,)``, the same in each column: the least that a matrix
    unit multiplies by.
    """
    columns = tl.broadcast_to(vector.to(tile.dtype)[:, None], (vector.shape[0], 16))
    return dot(tile, columns, acc)


@triton.jit
def _emit(y, z, weight, head, out, squares, P: tl.constexpr):
    """Gate y (HEADS, P) and write it, with the sum of squares of each head."""
    gated = y * silu(z.to(tl.float32))
    tl.store(squares + head, tl.sum(gated * gated, 1))
    tl.store(
        out + head[:, None] * P + tl.arange(0, P)[None, :],
        (gated * weight).to(out.dtype.element_ty),
    )


@triton.jit
def _recall_window(
    projected, items, keys, decay, base, norm, pos, count, skip, scores, out, squares,
    P: tl.constexpr, N: tl.constexpr, HEADS: tl.constexpr, HELD: tl.constexpr, FIRST: tl.constexpr,
    FOLD: tl.constexpr, STAGES: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """While the whole past is in the window."""
    n, p, s, head = tl.arange(0, N), tl.arange(0, P), tl.arange(0, HELD), tl.arange(0, HEADS)
    where = head[:, None] * P + p[None, :]
    tile = items + s[:, None] * P + p[None, :]
    # by the kernel before the one before
    z, weight = tl.load(projected + where), tl.load(norm + where)
    # few programs: what the kernel before did not write is asked for before waiting for it
    if HEADS == 1:
        us = tl.load(tile, mask=(s < count - 1)[:, None], other=0.0)
    wait(OVERLAP)
    if pos >= 0:
        score = tl.load(scores + s, mask=s < count - 1, other=0.0)
        now = tl.load(items + head[:, None] * HELD * P + (count - 1) * P + p[None, :]).to(
            tl.float32
        )
        y = now * (tl.load(skip + head) + tl.load(scores + count - 1))[:, None]
        last = tl.load(decay + head * HELD + count - 1)
        for j in tl.range(HEADS, num_stages=STAGES):
            if HEADS > 1:
                us = tl.load(tile + j * HELD * P, mask=(s < count)[:, None], other=0.0)
            l = _one(last, j, HEADS)
            kept = _kept(l, decay + j * HELD, s, count)
            acc = _times(tl.trans(us), kept * score, tl.zeros((P, 16), tl.float32))
            y += tl.where((head == j)[:, None], (tl.sum(acc, 1) / 16)[None, :], 0.0)
            if FOLD:
                if count == FIRST:
                    whole = tl.load(tile + j * HELD * P, mask=(s < FIRST)[:, None], other=0.0)
                    whole = whole.to(tl.float32) * kept[:, None]
                    bs = tl.load(
                        keys + s[:, None] * N + n[None, :], mask=(s < FIRST)[:, None], other=0.0
                    )
                    state = dot(tl.trans(whole).to(bs.dtype), bs, tl.zeros((P, N), tl.float32))
                    tl.store(
                        base + (j * P + p[:, None]) * N + n[None, :],
                        state.to(base.dtype.element_ty),
                    )
        _emit(y, z, weight, head, out, squares, P)


@triton.jit
def _recall_state(
    projected, items, keys, decay, base, norm, pos, count, skip, query, scores, out, squares,
    P: tl.constexpr, N: tl.constexpr, HEADS: tl.constexpr, HELD: tl.constexpr, OFTEN: tl.constexpr,
    FOLD: tl.constexpr, STAGES: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """Once there is a state, with a few items since."""
    n, p, s, head = tl.arange(0, N), tl.arange(0, P), tl.arange(0, OFTEN), tl.arange(0, HEADS)
    where = head[:, None] * P + p[None, :]
    tile = base + p[:, None] * N + n[None, :]
    # by the kernel before the one before
    z, weight = tl.load(projected + where), tl.load(norm + where)
    if HEADS == 1:
        state = tl.load(tile)
    wait(OVERLAP)
    if pos >= 0:
        score = tl.load(scores + s, mask=s < count - 1, other=0.0)
        now = tl.load(items + head[:, None] * HELD * P + (count - 1) * P + p[None, :]).to(
            tl.float32
        )
        y = now * (tl.load(skip + head) + tl.load(scores + count - 1))[:, None]
        last = tl.load(decay + head * HELD + count - 1)
        c = tl.load(query + n)
        for j in tl.range(HEADS, num_stages=STAGES):
            if HEADS > 1:
                state = tl.load(tile + j * P * N)
            us = tl.load(
                items + (j * HELD + s[:, None]) * P + p[None, :],
                mask=(s < count)[:, None],
                other=0.0,
            )
            l = _one(last, j, HEADS)
            kept = _kept(l, decay + j * HELD, s, count)
            acc = _times(state, c, tl.zeros((P, 16), tl.float32)) * tl.exp(l)
            acc = _times(tl.trans(us), kept * score, acc)
            y += tl.where((head == j)[:, None], (tl.sum(acc, 1) / 16)[None, :], 0.0)
            if FOLD:
                if count == OFTEN:
                    bs = tl.load(keys + s[:, None] * N + n[None, :])
                    new = dot(
                        tl.trans(us.to(tl.float32) * kept[:, None]).to(bs.dtype),
                        bs,
                        state.to(tl.float32) * tl.exp(l),
                    )
                    tl.store(tile + j * P * N, new.to(base.dtype.element_ty))
        _emit(y, z, weight, head, out, squares, P)


@triton.jit
def _recall(
    projected, items, keys, decay, base, norm, positions, origins, skip, query, scores, out,
    squares,
    H: tl.constexpr, P: tl.constexpr, N: tl.constexpr, HEADS: tl.constexpr, TWICE: tl.constexpr,
    HELD: tl.constexpr, FIRST: tl.constexpr, OFTEN: tl.constexpr, FOLD: tl.constexpr,
    STAGES: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """HEADS heads of a row; where there is a state, TWICE HEADS for each TWICE-th program, and
    nothing for the others.
    """
    group, row = tl.program_id(0), tl.program_id(1)
    pos = tl.load(positions + row).to(tl.int32)
    origin = tl.load(origins + row)
    count = tl.minimum(pos - origin, HELD - 1) + 1
    block = row * H + group * HEADS
    items += block * HELD * P
    decay += block * HELD
    base += block * P * N
    keys += row * HELD * N
    scores += row * HELD
    squares += block
    skip += block
    out += block * P
    norm += group * HEADS * P
    projected += row * (2 * H * P + 2 * N + H) + group * HEADS * P
    if origin == 0:
        _recall_window(
            projected, items, keys, decay, base, norm, pos, count, skip, scores, out, squares,
            P, N, HEADS, HELD, FIRST, FOLD, STAGES, OVERLAP,
        )  # fmt: skip
    elif group % TWICE == 0:
        _recall_state(
            projected, items, keys, decay, base, norm, pos, count, skip, query + row * N, scores,
            out, squares, P, N, HEADS * TWICE, HELD, OFTEN, FOLD, STAGES, OVERLAP,
        )  # fmt: skip


def mix(
    projected: Tensor, window: Window, weights: MixWeights, positions: Tensor, origins: Tensor,
    out: Tensor, squares: Tensor, often: int, folds: bool, overlap: bool = False,
    first: int | None = None,
) -> None:  # fmt: skip
    """One item of every row that is not idle, in two kernels: the first takes the item into the
    window, the second recalls.

    projected (R, E) is z, x, B, C, dt of the new item; positions (S,) int64, negative where idle;
    origins (S,) int32. Writes out (R, I), the mixed item times silu(z) and the norm's weight but
    not divided by its root mean square, and squares (R, H) float32, whose sum over a row, divided
    by I, is the mean square that is missing. ``often`` is how many items a window takes up once its
    origin has moved, a power of two of 16 or more, and ``first`` how many before: as many as there
    is room for, a power of two, too, if None. One that is full is folded here if ``folds``, else by
    ``fold``.
    """
    rows = projected.shape[0]
    _, count, channels, size = window.base.shape
    held, ring = window.keys.shape[1], window.ring.shape[1]
    first = first or held
    new = squares.new_empty
    skip, query, scores = new(rows, count), new(rows, size), new(rows, held)
    heads, together, shares = 8 if count % 8 == 0 else 1, *_crew(rows, held)
    take[(rows * shares + count // heads * triton.cdiv(rows, together),)](
        projected, *window[:4], *weights[:5], positions, origins, skip, query, scores, rows, shares,
        held, count, channels, size, len(weights.taps), ring, heads, together, SHARE,
        **options(overlap, num_warps=4),
    )  # fmt: skip
    heads, warps, stages = _plan(rows, count)
    twice = 2 if rows > table.RECALLED_ONCE and count % (2 * heads) == 0 else 1
    _recall[(count // heads, rows)](
        projected, *window[1:], weights.norm, positions, origins, skip, query, scores, out, squares,
        count, channels, size, heads, twice, held, first, often, folds, stages,
        **options(overlap, num_warps=warps),
    )  # fmt: skip


def _crew(rows: int, held: int) -> tuple[int, int]:
    """Rows of a program that takes, and programs that score one row's window, in ``take``."""
    if rows <= table.TAKEN_ALONE:
        return 1, triton.cdiv(held, SHARE)
    return 2 if rows <= table.TAKEN_IN_TWOS else 4, 1


def _plan(rows: int, count: int) -> tuple[int, int, int]:
    """Heads of a program, warps and stages of ``_recall``: enough programs to fill a GPU, then more
    work for each.
    """
    if rows <= table.A_HEAD_EACH:
        return 1, 4, 1
    heads, warps, stages = (4, 4, 3) if rows <= table.WIDE_PROGRAMS else (4, 2, 2)
    return next(h for h in (heads, 2, 1) if count % h == 0), warps, stages
