"""Kernels of one step's mixing: ``ops.decode.window`` says what they compute."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from aim.ops.decode.common import dot, options, silu, softplus, wait
from aim.ops.decode.window import MixWeights, Window

SHARE = 32  # items of the window that one program scores


@triton.jit
def _remembered(ring, taps, bias, pos, channel, width, K: tl.constexpr):
    """The convolution at ``channel`` but for the new item."""
    out = tl.load(bias + channel)
    for k in tl.static_range(K - 1):
        t = pos - (K - 1) + k
        past = tl.load(ring + ((t + K) % K) * width + channel, mask=channel < tl.where(t >= 0, width, 0), other=0.0).to(tl.float32)
        out += past * tl.load(taps + k * width + channel)
    return out


@triton.jit
def _take(
    projected, ring, items, keys, decay, taps, tap_bias, dt_bias, A, D, positions, origins, skip, query, scores,
    W, H: tl.constexpr, P: tl.constexpr, N: tl.constexpr, K: tl.constexpr, HEADS: tl.constexpr, SPAN: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    group, row = tl.program_id(0), tl.program_id(1)
    groups: tl.constexpr = H // HEADS
    inner: tl.constexpr = H * P
    width: tl.constexpr = inner + 2 * N
    pos = tl.load(positions + row).to(tl.int32)
    past = tl.minimum(pos - tl.load(origins + row), W - 1)  # items in the window before this one
    ring += row * K * width
    projected += row * (2 * inner + 2 * N + H)
    at = ring + (pos % K) * width
    newest = taps + (K - 1) * width
    # what the kernel before does not write is asked for before waiting for it
    if group < groups:
        h = group * HEADS + tl.arange(0, HEADS)
        p = tl.arange(0, P)
        channel = h[:, None] * P + p[None, :]  # (HEADS, P)
        known, tap = _remembered(ring, taps, tap_bias, pos, channel, width, K), tl.load(newest + channel)
        log = decay + (row * H + h) * W + past
        before = tl.load(log - 1, mask=h < tl.where(past > 0, H, 0), other=0.0)
        rate, step_bias, through = tl.load(A + h), tl.load(dt_bias + h), tl.load(D + h)
        wait(OVERLAP)
        if pos >= 0:
            new, dt = tl.load(projected + inner + channel), tl.load(projected + 2 * inner + 2 * N + h)
            x = silu(known + new.to(tl.float32) * tap)
            dt = tl.maximum(softplus(dt.to(tl.float32) + step_bias), 1e-30)  # it is divided by
            tl.store(log, before + dt * rate)
            tl.store(at + channel, new)
            tl.store(skip + row * H + h, through / dt)  # D x is this times dt x, which the window has
            place = items + ((row * H + h[:, None]) * W + past) * P + p[None, :]
            tl.store(place, (x * dt[:, None]).to(items.dtype.element_ty))
    else:
        _score(projected, ring, at, keys, taps, tap_bias, query, scores, row, group - groups, pos, past, W, inner, N, K, SPAN, OVERLAP)


@triton.jit
def _score(
    projected, ring, at, keys, taps, tap_bias, query, scores, row, share, pos, past, W,
    inner: tl.constexpr, N: tl.constexpr, K: tl.constexpr, SPAN: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """C . B_s for a share of the window; the first share also takes in the new B and C."""
    n = tl.arange(0, N)
    width: tl.constexpr = inner + 2 * N
    newest = taps + (K - 1) * width + inner + n
    s = share * SPAN + tl.arange(0, SPAN)
    bs = tl.load(keys + (row * W + s[:, None]) * N + n[None, :], mask=(s < past)[:, None], other=0.0).to(tl.float32)
    known_b, tap_b = _remembered(ring, taps, tap_bias, pos, inner + n, width, K), tl.load(newest)
    known_c, tap_c = _remembered(ring, taps, tap_bias, pos, inner + N + n, width, K), tl.load(newest + N)
    wait(OVERLAP)
    if (pos >= 0) & (share * SPAN <= past):
        new_b, new_c = tl.load(projected + 2 * inner + n), tl.load(projected + 2 * inner + N + n)
        c = silu(known_c + new_c.to(tl.float32) * tap_c)
        tl.store(scores + row * W + s, tl.sum(bs * c[None, :], 1), mask=s < past)
        if share == 0:
            b = silu(known_b + new_b.to(tl.float32) * tap_b)
            tl.store(at + inner + n, new_b)
            tl.store(at + inner + N + n, new_c)
            tl.store(keys + (row * W + past) * N + n, b.to(keys.dtype.element_ty))
            tl.store(query + row * N + n, c)
            tl.store(scores + row * W + past, tl.sum(b * c, 0))


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
    """``acc (P, 16) + tile (P, S) @ vector (S,)``, the same in each column: the least that a matrix unit multiplies by."""
    columns = tl.broadcast_to(vector.to(tile.dtype)[:, None], (vector.shape[0], 16))
    return dot(tile, columns, acc)


@triton.jit
def _emit(y, z, weight, head, out, squares, P: tl.constexpr):
    """Gate y (HEADS, P) and write it, with the sum of squares of each head."""
    gated = y * silu(z.to(tl.float32))
    tl.store(squares + head, tl.sum(gated * gated, 1))
    tl.store(out + head[:, None] * P + tl.arange(0, P)[None, :], (gated * weight).to(out.dtype.element_ty))


@triton.jit
def _recall_window(
    projected, items, keys, decay, base, norm, pos, count, skip, scores, out, squares,
    P: tl.constexpr, N: tl.constexpr, HEADS: tl.constexpr, FIRST: tl.constexpr, FOLD: tl.constexpr, STAGES: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """While the whole past is in the window."""
    n, p, s, head = tl.arange(0, N), tl.arange(0, P), tl.arange(0, FIRST), tl.arange(0, HEADS)
    where = head[:, None] * P + p[None, :]
    tile = items + s[:, None] * P + p[None, :]
    z, weight = tl.load(projected + where), tl.load(norm + where)  # by the kernel before the one before
    if HEADS == 1:  # few programs: what the kernel before did not write is asked for before waiting for it
        us = tl.load(tile, mask=(s < count - 1)[:, None], other=0.0)
    wait(OVERLAP)
    if pos >= 0:
        score = tl.load(scores + s, mask=s < count - 1, other=0.0)
        now = tl.load(items + head[:, None] * FIRST * P + (count - 1) * P + p[None, :]).to(tl.float32)
        y = now * (tl.load(skip + head) + tl.load(scores + count - 1))[:, None]
        last = tl.load(decay + head * FIRST + count - 1)
        for j in tl.range(HEADS, num_stages=STAGES):
            if HEADS > 1:
                us = tl.load(tile + j * FIRST * P, mask=(s < count)[:, None], other=0.0)
            l = _one(last, j, HEADS)
            kept = _kept(l, decay + j * FIRST, s, count)
            acc = _times(tl.trans(us), kept * score, tl.zeros((P, 16), tl.float32))
            y += tl.where((head == j)[:, None], (tl.sum(acc, 1) / 16)[None, :], 0.0)
            if FOLD:
                if count == FIRST:
                    whole = tl.load(tile + j * FIRST * P).to(tl.float32) * kept[:, None]
                    bs = tl.load(keys + s[:, None] * N + n[None, :])
                    state = dot(tl.trans(whole).to(bs.dtype), bs, tl.zeros((P, N), tl.float32))
                    tl.store(base + (j * P + p[:, None]) * N + n[None, :], state.to(base.dtype.element_ty))
        _emit(y, z, weight, head, out, squares, P)


@triton.jit
def _recall_state(
    projected, items, keys, decay, base, norm, pos, count, skip, query, scores, out, squares,
    P: tl.constexpr, N: tl.constexpr, HEADS: tl.constexpr, FIRST: tl.constexpr, OFTEN: tl.constexpr, FOLD: tl.constexpr,
    STAGES: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """Once there is a state, with a few items since."""
    n, p, s, head = tl.arange(0, N), tl.arange(0, P), tl.arange(0, OFTEN), tl.arange(0, HEADS)
    where = head[:, None] * P + p[None, :]
    tile = base + p[:, None] * N + n[None, :]
    z, weight = tl.load(projected + where), tl.load(norm + where)  # by the kernel before the one before
    if HEADS == 1:
        state = tl.load(tile)
    wait(OVERLAP)
    if pos >= 0:
        score = tl.load(scores + s, mask=s < count - 1, other=0.0)
        now = tl.load(items + head[:, None] * FIRST * P + (count - 1) * P + p[None, :]).to(tl.float32)
        y = now * (tl.load(skip + head) + tl.load(scores + count - 1))[:, None]
        last = tl.load(decay + head * FIRST + count - 1)
        c = tl.load(query + n)
        for j in tl.range(HEADS, num_stages=STAGES):
            if HEADS > 1:
                state = tl.load(tile + j * P * N)
            us = tl.load(items + (j * FIRST + s[:, None]) * P + p[None, :], mask=(s < count)[:, None], other=0.0)
            l = _one(last, j, HEADS)
            kept = _kept(l, decay + j * FIRST, s, count)
            acc = _times(state, c, tl.zeros((P, 16), tl.float32)) * tl.exp(l)
            acc = _times(tl.trans(us), kept * score, acc)
            y += tl.where((head == j)[:, None], (tl.sum(acc, 1) / 16)[None, :], 0.0)
            if FOLD:
                if count == OFTEN:
                    bs = tl.load(keys + s[:, None] * N + n[None, :])
                    new = dot(tl.trans(us.to(tl.float32) * kept[:, None]).to(bs.dtype), bs, state.to(tl.float32) * tl.exp(l))
                    tl.store(tile + j * P * N, new.to(base.dtype.element_ty))
        _emit(y, z, weight, head, out, squares, P)


@triton.jit
def _recall(
    projected, items, keys, decay, base, norm, positions, origins, skip, query, scores, out, squares,
    H: tl.constexpr, P: tl.constexpr, N: tl.constexpr, HEADS: tl.constexpr, FIRST: tl.constexpr, OFTEN: tl.constexpr,
    FOLD: tl.constexpr, STAGES: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    group, row = tl.program_id(0), tl.program_id(1)
    pos = tl.load(positions + row).to(tl.int32)
    origin = tl.load(origins + row)
    count = tl.minimum(pos - origin, FIRST - 1) + 1
    block = row * H + group * HEADS
    items += block * FIRST * P
    decay += block * FIRST
    base += block * P * N
    keys += row * FIRST * N
    scores += row * FIRST
    squares += block
    skip += block
    out += block * P
    norm += group * HEADS * P
    projected += row * (2 * H * P + 2 * N + H) + group * HEADS * P
    if origin == 0:
        _recall_window(
            projected, items, keys, decay, base, norm, pos, count, skip, scores, out, squares,
            P, N, HEADS, FIRST, FOLD, STAGES, OVERLAP,
        )  # fmt: skip
    else:
        _recall_state(
            projected, items, keys, decay, base, norm, pos, count, skip, query + row * N, scores, out, squares,
            P, N, HEADS, FIRST, OFTEN, FOLD, STAGES, OVERLAP,
        )  # fmt: skip


def mix(
    projected: Tensor, window: Window, weights: MixWeights, positions: Tensor, origins: Tensor, out: Tensor, squares: Tensor,
    often: int, folds: bool, overlap: bool = False,
) -> None:  # fmt: skip
    """One item of every row that is not idle, in two kernels: the first takes the item into the window, the second recalls.

    projected (R, E) is z, x, B, C, dt of the new item; positions (S,) int64, negative where idle; origins (S,) int32. Writes
    out (R, I), the mixed item times silu(z) and the norm's weight but not divided by its root mean square, and squares
    (R, H) float32, whose sum over a row, divided by I, is the mean square that is missing. ``often`` is how many items a window
    takes up once its origin has moved, a power of two of 16 or more; one that is full is folded here if ``folds``, else by ``fold``.
    """
    rows = projected.shape[0]
    _, count, channels, size = window.base.shape
    held = window.keys.shape[1]
    new = squares.new_empty
    skip, query, scores = new(rows, count), new(rows, size), new(rows, held)
    heads = 8 if count % 8 == 0 else 1
    _take[(count // heads + triton.cdiv(held, SHARE), rows)](
        projected, *window[:4], *weights[:5], positions, origins, skip, query, scores,
        held, count, channels, size, window.ring.shape[1], heads, SHARE, **options(overlap, num_warps=4),
    )  # fmt: skip
    heads, warps, stages = _plan(rows, count)
    _recall[(count // heads, rows)](
        projected, *window[1:], weights.norm, positions, origins, skip, query, scores, out, squares,
        count, channels, size, heads, held, often, folds, stages, **options(overlap, num_warps=warps),
    )  # fmt: skip


def _plan(rows: int, count: int) -> tuple[int, int, int]:
    """Heads of a program, warps and stages of ``_recall``: enough programs to fill a GPU, then more work for each."""
    if rows <= 8:
        return 1, 4, 1
    heads, warps, stages = (4, 4, 3) if rows <= 64 else (4, 2, 2) if rows <= 128 else (8, 2, 2)
    return next(h for h in (heads, 2, 1) if count % h == 0), warps, stages
