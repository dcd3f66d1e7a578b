"""Kernels of the mixing of several items a row in one pass, not all of which may be kept: what
``window.mix`` computes item by item, with one reading of history and state.

The items go into the history itself, behind those that are settled; how many of them count, a row's
next position says. What an item must not read is selected away, since it may not be finite.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from aim.ops.triton.decode import rows as table
from aim.ops.triton.decode.common import COLUMNS, INF, dot, options, silu, softplus, wait
from aim.ops.triton.decode.window_take import SHARE, remembered
from aim.ops.window import MixWeights, Window


@triton.jit
def _convolved(
    out, raw, taps, w, channel, stride, width, W: tl.constexpr, K: tl.constexpr
):  # fmt: skip
    """``out``, as of ``remembered``, with what items from ``pos`` on add, through silu; ``raw`` is
    channel 0 of the first of W.
    """
    for k in tl.static_range(K):
        j = w - (K - 1) + k
        new = tl.load(
            raw + tl.maximum(j, 0) * stride + channel,
            mask=channel < tl.where((j >= 0) & (j < W), width, 0),
            other=0.0,
        )
        out += new.to(tl.float32) * tl.load(taps + k * width + channel).to(tl.float32)
    return silu(out)


@triton.jit
def _take_ahead(
    projected, ring, items, keys, decay, taps, tap_bias, dt_bias, A, D, positions, origins, skip,
    query, scores, lines, shares,
    W: tl.constexpr, HELD: tl.constexpr, H: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    K: tl.constexpr, RING: tl.constexpr, HEADS: tl.constexpr, SPAN: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """The first ``lines * (shares + 1)`` programs score what an item reads; each of the others
    takes HEADS heads of an item.
    """
    program = tl.program_id(0)
    inner: tl.constexpr = H * P
    width: tl.constexpr = inner + 2 * N
    stride: tl.constexpr = 2 * inner + 2 * N + H
    scoring = lines * (shares + 1)
    each = tl.where(program < scoring, shares + 1, H // HEADS)
    program = tl.where(program < scoring, program, program - scoring)
    line, part = program // each, program % each
    row, w = line // W, line % W
    pos = tl.load(positions + row).to(tl.int32)
    past = pos - tl.load(origins + row)  # settled items in the window
    ring += row * RING * width
    raw = projected + row * W * stride + inner
    if tl.program_id(0) < scoring:
        n = tl.arange(0, N)
        keys += row * HELD * N
        scores += line * HELD
        known_c = remembered(ring, taps, tap_bias, pos, w, inner + N + n, width, K, RING)
        if part < shares:
            s = part * SPAN + tl.arange(0, SPAN)
            bs = tl.load(keys + s[:, None] * N + n[None, :], mask=(s < past)[:, None], other=0.0)
            wait(OVERLAP)
            if (pos >= 0) & (part * SPAN < past):
                c = _convolved(known_c, raw, taps, w, inner + N + n, stride, width, W, K)
                tl.store(scores + s, tl.sum(bs.to(tl.float32) * c[None, :], 1), mask=s < past)
        else:  # those of this pass
            v, channel = tl.arange(0, COLUMNS), inner + n
            known = remembered(
                ring, taps, tap_bias, pos, v[:, None], channel[None, :], width, K, RING
            )
            wait(OVERLAP)
            if pos >= 0:
                c = _convolved(known_c, raw, taps, w, channel + N, stride, width, W, K)
                bs = _convolved(known, raw, taps, v[:, None], channel[None, :], stride, width, W, K)
                rounded = bs.to(keys.dtype.element_ty)
                own = (v == w)[:, None]
                tl.store(
                    scores + past + v,
                    tl.sum(tl.where(own, bs, rounded.to(tl.float32)) * c[None, :], 1),
                    mask=v <= w,
                )
                tl.store(
                    keys + (past + v[:, None]) * N + n[None, :],
                    rounded,
                    mask=n[None, :] < tl.where(own, N, 0),
                )
                tl.store(query + line * N + n, c)
                into, new = ring + (pos + w) % RING * width + channel, raw + w * stride + channel
                tl.store(into, tl.load(new))
                tl.store(into + N, tl.load(new + N))
    else:
        h, p = part * HEADS + tl.arange(0, HEADS), tl.arange(0, P)
        channel = h[:, None] * P + p[None, :]
        known = remembered(ring, taps, tap_bias, pos, w, channel, width, K, RING)
        rate, step_bias, through = tl.load(A + h), tl.load(dt_bias + h), tl.load(D + h)
        log = decay + (row * H + h) * HELD + past
        l = tl.load(log - 1, mask=h < tl.where(past > 0, H, 0), other=0.0)
        wait(OVERLAP)
        if pos >= 0:
            x = _convolved(known, raw, taps, w, channel, stride, width, W, K)
            dt = tl.full((HEADS,), 1.0, tl.float32)
            for v in tl.static_range(W):  # one after another, as step by step
                new = tl.load(
                    raw + v * stride + width + h, mask=h < tl.where(v <= w, H, 0), other=0.0
                )
                new = tl.maximum(softplus(new.to(tl.float32) + step_bias), 1e-30)
                dt = tl.where(v <= w, new, dt)
                l = tl.where(v <= w, l + new * rate, l)
            tl.store(log + w, l)
            tl.store(ring + (pos + w) % RING * width + channel, tl.load(raw + w * stride + channel))
            # D x is this times dt x, which the window has
            tl.store(skip + line * H + h, through / dt)
            place = items + ((row * H + h) * HELD + past + w)[:, None] * P + p[None, :]
            tl.store(place, (x * dt[:, None]).to(items.dtype.element_ty))


@triton.jit
def _recall_ahead(
    projected, items, decay, base, norm, positions, origins, skip, query, scores, out, squares,
    W: tl.constexpr, HELD: tl.constexpr, H: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    HEADS: tl.constexpr, LATER: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """HEADS heads of all items of a row; a column is an item."""
    first, row = tl.program_id(0) * HEADS, tl.program_id(1)
    pos = tl.load(positions + row).to(tl.int32)
    origin = tl.load(origins + row)
    wait(OVERLAP)
    if pos >= 0:
        if origin == 0:
            _columns(
                projected, items, decay, base, norm, pos - origin, row, first, skip, query, scores,
                out, squares, W, HELD, H, P, N, HEADS, HELD, False,
            )  # fmt: skip
        else:
            _columns(
                projected, items, decay, base, norm, pos - origin, row, first, skip, query, scores,
                out, squares, W, HELD, H, P, N, HEADS, LATER, True,
            )  # fmt: skip


@triton.jit
def _columns(
    projected, items, decay, base, norm, past, row, first, skip, query, scores, out, squares,
    W: tl.constexpr, HELD: tl.constexpr, H: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    HEADS: tl.constexpr, SPAN: tl.constexpr, STATE: tl.constexpr,
):  # fmt: skip
    """The window has at most SPAN items."""
    w, s = tl.arange(0, COLUMNS), tl.arange(0, SPAN)
    n, p = tl.arange(0, N), tl.arange(0, P)
    inner: tl.constexpr = H * P
    here = w < W
    line = row * W + w
    seen = (s[:, None] < past + w[None, :]) & here[None, :]  # (SPAN, COLUMNS)
    score = tl.load(scores + line[None, :] * HELD + s[:, None], mask=seen, other=0.0)
    own = tl.load(scores + line * HELD + past + w, mask=here, other=0.0)
    if STATE:
        c = tl.load(query + line[None, :] * N + n[:, None], mask=here[None, :], other=0.0)
        c = c.to(base.dtype.element_ty)  # (N, COLUMNS)
    columns = p[:, None] < tl.where(here[None, :], P, 0)  # (P, COLUMNS)
    for j in range(HEADS):
        h = first + j
        block = row * H + h
        l = tl.load(decay + block * HELD + past + w, mask=here, other=0.0)
        old = tl.load(decay + block * HELD + s, mask=s < past + W, other=0.0)
        kept = tl.where(seen, tl.exp(l[None, :] - old[:, None]) * score, 0.0)
        us = tl.load(
            items + (block * HELD + s[:, None]) * P + p[None, :],
            mask=(s < past + W - 1)[:, None],
            other=0.0,
        )
        us = tl.where(tl.abs(us.to(tl.float32)) < INF, us, 0.0)  # as 0 times it is not 0
        acc = tl.zeros((P, COLUMNS), tl.float32)
        if STATE:
            state = tl.load(base + (block * P + p[:, None]) * N + n[None, :])
            acc = dot(state, c, acc) * tl.exp(l)[None, :]
        acc = dot(tl.trans(us), kept.to(us.dtype), acc)
        now = tl.load(
            items + (block * HELD + past + w[None, :]) * P + p[:, None], mask=columns, other=0.0
        )
        skipped = tl.load(skip + line * H + h, mask=here, other=0.0)
        y = now.to(tl.float32) * (skipped + own)[None, :] + acc
        stride: tl.constexpr = 2 * inner + 2 * N + H
        z = tl.load(
            projected + line[None, :] * stride + h * P + p[:, None], mask=columns, other=0.0
        )
        gated = y * silu(z.to(tl.float32))
        weight = tl.load(norm + h * P + p)
        tl.store(squares + line * H + h, tl.sum(gated * gated, 0), mask=here)
        tl.store(
            out + line[None, :] * inner + h * P + p[:, None],
            (gated * weight[:, None]).to(out.dtype.element_ty),
            mask=columns,
        )


def mix_ahead(
    projected: Tensor, window: Window, weights: MixWeights, positions: Tensor, origins: Tensor,
    out: Tensor, squares: Tensor, often: int, width: int, overlap: bool = False,
) -> None:  # fmt: skip
    """``width`` items of every row that is not idle, at most 16, from its position on: as
    ``window.mix``, but for what follows.

    projected (R width, E), out and squares have a line an item. The window, a power of two, has
    room for the items behind those that it keeps, fewer than ``often`` once its origin has moved,
    and the ring for as many less one behind the convolution's. Nothing is folded.
    """
    lines = projected.shape[0]
    rows = lines // width
    _, count, channels, size = window.base.shape
    held, ring, taps = window.keys.shape[1], window.ring.shape[1], len(weights.taps)
    assert held >= often + width and ring >= taps - 1 + width and width <= COLUMNS.value <= often
    new = squares.new_empty
    skip, query, scores = new(lines, count), new(lines, size), new(lines, held)
    heads, shares = 8 if count % 8 == 0 else 1, triton.cdiv(held, SHARE)
    _take_ahead[(lines * (shares + 1 + count // heads),)](
        projected, *window[:4], *weights[:5], positions, origins, skip, query, scores, lines,
        shares, width, held, count, channels, size, taps, ring, heads, SHARE,
        **options(overlap, num_warps=4),
    )  # fmt: skip
    heads = 4 if rows > table.A_HEAD_EACH and count % 4 == 0 else 1
    _recall_ahead[(count // heads, rows)](
        projected, window.items, window.decay, window.base, weights.norm, positions, origins, skip,
        query, scores, out, squares, width, held, count, channels, size, heads, 2 * often,
        **options(overlap, num_warps=4),
    )  # fmt: skip
