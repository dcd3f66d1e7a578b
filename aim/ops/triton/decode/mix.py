"""Kernels of one step's mixing: ``ops.window`` says what they compute."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from aim.ops.triton.decode.common import dot, options, silu, softplus, wait
from aim.ops.window import MixWeights, Window

SHARE = 32  # items of the window that are scored at once


@triton.jit
def _remembered(ring, taps, bias, pos, channel, width, K: tl.constexpr):
    """The convolution at ``channel`` but for the new item; ``ring``, ``pos`` and ``channel``
    broadcast to what comes out.
    """
    out = tl.load(bias + channel).to(tl.float32)
    for k in tl.static_range(K - 1):
        t = pos - (K - 1) + k
        past = tl.load(
            ring + ((t + K) % K) * width + channel,
            mask=channel < tl.where(t >= 0, width, 0),
            other=0.0,
        )
        out += past.to(tl.float32) * tl.load(taps + k * width + channel).to(tl.float32)
    return out


@triton.jit
def _take(
    projected, ring, items, keys, decay, taps, tap_bias, dt_bias, A, D, positions, origins, skip,
    query, scores, rows, shares,
    W, H: tl.constexpr, P: tl.constexpr, N: tl.constexpr, K: tl.constexpr, HEADS: tl.constexpr,
    ROWS: tl.constexpr, SPAN: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """The first ``rows * shares`` programs score the windows; each of the others takes HEADS heads
    of ROWS rows.
    """
    program = tl.program_id(0)
    inner: tl.constexpr = H * P
    width: tl.constexpr = inner + 2 * N
    if program < rows * shares:
        _score(
            projected, ring, keys, taps, tap_bias, positions, origins, query, scores,
            program // shares, program % shares, shares,
            W, H, P, N, K, SPAN, OVERLAP,
        )  # fmt: skip
    else:
        program -= rows * shares
        row = program // (H // HEADS) * ROWS + tl.arange(0, ROWS)
        h = program % (H // HEADS) * HEADS + tl.arange(0, HEADS)
        # what the kernel before does not write is asked for before waiting for it
        pos = tl.load(positions + row, mask=row < rows, other=-1).to(tl.int32)
        # items in the window before this one
        past = tl.minimum(pos - tl.load(origins + row, mask=row < rows, other=0), W - 1)
        p = tl.arange(0, P)[None, None, :]
        channel = h[None, :, None] * P + p  # (1, HEADS, P)
        own = ring + row[:, None, None] * K * width
        # of shape (ROWS, HEADS, P)
        known = _remembered(own, taps, tap_bias, pos[:, None, None], channel, width, K)
        tap = tl.load(taps + (K - 1) * width + channel).to(tl.float32)
        head = row[:, None] * H + h[None, :]  # (ROWS, HEADS)
        log = decay + head * W + past[:, None]
        before = tl.load(log - 1, mask=h[None, :] < tl.where(past > 0, H, 0)[:, None], other=0.0)
        rate, step_bias, through = (
            tl.load(A + h)[None, :],
            tl.load(dt_bias + h)[None, :],
            tl.load(D + h)[None, :],
        )
        wait(OVERLAP)
        limit = tl.where(pos >= 0, inner, 0)
        live, heads = channel < limit[:, None, None], h[None, :] < limit[:, None]
        start = projected + row * (2 * inner + 2 * N + H)
        new = tl.load(start[:, None, None] + inner + channel, mask=live, other=0.0)
        dt = tl.load(start[:, None] + 2 * inner + 2 * N + h[None, :], mask=heads, other=0.0)
        x = silu(known + new.to(tl.float32) * tap)
        dt = tl.maximum(softplus(dt.to(tl.float32) + step_bias), 1e-30)  # it is divided by
        tl.store(log, before + dt * rate, mask=heads)
        tl.store(own + (pos % K)[:, None, None] * width + channel, new, mask=live)
        # D x is this times dt x, which the window has
        tl.store(skip + head, through / dt, mask=heads)
        place = items + (head * W + past[:, None])[:, :, None] * P + p
        tl.store(place, (x * dt[:, :, None]).to(items.dtype.element_ty), mask=live)


@triton.jit
def _score(
    projected, ring, keys, taps, tap_bias, positions, origins, query, scores, row, share, shares, W,
    H: tl.constexpr, P: tl.constexpr, N: tl.constexpr, K: tl.constexpr, SPAN: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """C . B_s for a share of a row's window; the first share also takes in the new B and C."""
    inner: tl.constexpr = H * P
    width: tl.constexpr = inner + 2 * N
    n = tl.arange(0, N)
    span = share * SPAN + tl.arange(0, SPAN)
    pos = tl.load(positions + row).to(tl.int32)
    past = tl.minimum(pos - tl.load(origins + row), W - 1)
    ring += row * K * width
    projected += row * (2 * inner + 2 * N + H) + 2 * inner + n
    keys += row * W * N + n
    newest = taps + (K - 1) * width + inner + n
    bs = tl.load(keys[None, :] + span[:, None] * N, mask=(span < past)[:, None], other=0.0)
    known_b, tap_b = (
        _remembered(ring, taps, tap_bias, pos, inner + n, width, K),
        tl.load(newest).to(tl.float32),
    )
    known_c, tap_c = (
        _remembered(ring, taps, tap_bias, pos, inner + N + n, width, K),
        tl.load(newest + N).to(tl.float32),
    )
    wait(OVERLAP)
    if (pos >= 0) & (share * SPAN <= past):
        new_b, new_c = tl.load(projected), tl.load(projected + N)
        c = silu(known_c + new_c.to(tl.float32) * tap_c)
        for start in range(0, past - share * SPAN, shares * SPAN):
            s = span + start
            ahead = tl.load(
                keys[None, :] + (s[:, None] + shares * SPAN) * N,
                mask=(s + shares * SPAN < past)[:, None],
                other=0.0,
            )
            tl.store(scores + row * W + s, tl.sum(bs.to(tl.float32) * c[None, :], 1), mask=s < past)
            bs = ahead
        if share == 0:
            b = silu(known_b + new_b.to(tl.float32) * tap_b)
            at = ring + (pos % K) * width + inner + n
            tl.store(at, new_b)
            tl.store(at + N, new_c)
            tl.store(keys + past * N, b.to(keys.dtype.element_ty))
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
    P: tl.constexpr, N: tl.constexpr, HEADS: tl.constexpr, FIRST: tl.constexpr, FOLD: tl.constexpr,
    STAGES: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """While the whole past is in the window."""
    n, p, s, head = tl.arange(0, N), tl.arange(0, P), tl.arange(0, FIRST), tl.arange(0, HEADS)
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
        now = tl.load(items + head[:, None] * FIRST * P + (count - 1) * P + p[None, :]).to(
            tl.float32
        )
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
                    tl.store(
                        base + (j * P + p[:, None]) * N + n[None, :],
                        state.to(base.dtype.element_ty),
                    )
        _emit(y, z, weight, head, out, squares, P)


@triton.jit
def _recall_state(
    projected, items, keys, decay, base, norm, pos, count, skip, query, scores, out, squares,
    P: tl.constexpr, N: tl.constexpr, HEADS: tl.constexpr, FIRST: tl.constexpr, OFTEN: tl.constexpr,
    FOLD: tl.constexpr,
    STAGES: tl.constexpr, OVERLAP: tl.constexpr,
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
        now = tl.load(items + head[:, None] * FIRST * P + (count - 1) * P + p[None, :]).to(
            tl.float32
        )
        y = now * (tl.load(skip + head) + tl.load(scores + count - 1))[:, None]
        last = tl.load(decay + head * FIRST + count - 1)
        c = tl.load(query + n)
        for j in tl.range(HEADS, num_stages=STAGES):
            if HEADS > 1:
                state = tl.load(tile + j * P * N)
            us = tl.load(
                items + (j * FIRST + s[:, None]) * P + p[None, :],
                mask=(s < count)[:, None],
                other=0.0,
            )
            l = _one(last, j, HEADS)
            kept = _kept(l, decay + j * FIRST, s, count)
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
    FIRST: tl.constexpr,
    OFTEN: tl.constexpr, FOLD: tl.constexpr, STAGES: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """HEADS heads of a row; where there is a state, TWICE HEADS for each TWICE-th program, and
    nothing for the others.
    """
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
    elif group % TWICE == 0:
        _recall_state(
            projected, items, keys, decay, base, norm, pos, count, skip, query + row * N, scores,
            out, squares,
            P, N, HEADS * TWICE, FIRST, OFTEN, FOLD, STAGES, OVERLAP,
        )  # fmt: skip


def mix(
    projected: Tensor, window: Window, weights: MixWeights, positions: Tensor, origins: Tensor,
    out: Tensor, squares: Tensor,
    often: int, folds: bool, overlap: bool = False,
) -> None:  # fmt: skip
    """One item of every row that is not idle, in two kernels: the first takes the item into the
    window, the second recalls.

    projected (R, E) is z, x, B, C, dt of the new item; positions (S,) int64, negative where idle;
    origins (S,) int32. Writes out (R, I), the mixed item times silu(z) and the norm's weight but
    not divided by its root mean square, and squares (R, H) float32, whose sum over a row, divided
    by I, is the mean square that is missing. ``often`` is how many items a window takes up once its
    origin has moved, a power of two of 16 or more; one that is full is folded here if ``folds``,
    else by ``fold``.
    """
    rows = projected.shape[0]
    _, count, channels, size = window.base.shape
    held = window.keys.shape[1]
    new = squares.new_empty
    skip, query, scores = new(rows, count), new(rows, size), new(rows, held)
    heads, together, shares = 8 if count % 8 == 0 else 1, *_crew(rows, held)
    _take[(rows * shares + count // heads * triton.cdiv(rows, together),)](
        projected, *window[:4], *weights[:5], positions, origins, skip, query, scores, rows, shares,
        held, count, channels, size, window.ring.shape[1], heads, together, SHARE,
        **options(overlap, num_warps=4),
    )  # fmt: skip
    heads, warps, stages = _plan(rows, count)
    twice = 2 if rows > 128 and count % (2 * heads) == 0 else 1
    _recall[(count // heads, rows)](
        projected, *window[1:], weights.norm, positions, origins, skip, query, scores, out, squares,
        count, channels, size, heads, twice, held, often, folds, stages, **options(overlap,
                                                                                   num_warps=warps),
    )  # fmt: skip


def _crew(rows: int, held: int) -> tuple[int, int]:
    """Rows of a program that takes, and programs that score one row's window, in ``_take``."""
    return (1, triton.cdiv(held, SHARE)) if rows <= 64 else (2 if rows <= 128 else 4, 1)


def _plan(rows: int, count: int) -> tuple[int, int, int]:
    """Heads of a program, warps and stages of ``_recall``: enough programs to fill a GPU, then more
    work for each.
    """
    if rows <= 8:
        return 1, 4, 1
    heads, warps, stages = (4, 4, 3) if rows <= 64 else (4, 2, 2)
    return next(h for h in (heads, 2, 1) if count % h == 0), warps, stages
