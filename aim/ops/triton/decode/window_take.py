"""The kernel that takes one more item into the window; see ``ops.window``."""

from __future__ import annotations

import triton
import triton.language as tl

from aim.ops.triton.decode.common import silu, softplus, wait

SHARE = 32  # items of the window that are scored at once


@triton.jit
def remembered(
    ring, taps, bias, pos, w, channel, width, K: tl.constexpr, RING: tl.constexpr
):  # fmt: skip
    """Of the convolution at item ``pos + w`` and ``channel`` what items before ``pos`` add; all
    broadcast to what comes out.
    """
    out = tl.load(bias + channel).to(tl.float32)
    for k in tl.static_range(K - 1):
        j = w - (K - 1) + k
        t = pos + j
        past = tl.load(
            ring + ((t + RING) % RING) * width + channel,
            mask=channel < tl.where((t >= 0) & (j < 0), width, 0),
            other=0.0,
        )
        out += past.to(tl.float32) * tl.load(taps + k * width + channel).to(tl.float32)
    return out


@triton.jit
def take(
    projected, ring, items, keys, decay, taps, tap_bias, dt_bias, A, D, positions, origins, skip,
    query, scores, rows, shares,
    W, H: tl.constexpr, P: tl.constexpr, N: tl.constexpr, K: tl.constexpr, RING: tl.constexpr,
    HEADS: tl.constexpr, ROWS: tl.constexpr, SPAN: tl.constexpr, OVERLAP: tl.constexpr,
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
            W, H, P, N, K, RING, SPAN, OVERLAP,
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
        own = ring + row[:, None, None] * RING * width
        # of shape (ROWS, HEADS, P)
        known = remembered(own, taps, tap_bias, pos[:, None, None], 0, channel, width, K, RING)
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
        tl.store(own + (pos % RING)[:, None, None] * width + channel, new, mask=live)
        # D x is this times dt x, which the window has
        tl.store(skip + head, through / dt, mask=heads)
        place = items + (head * W + past[:, None])[:, :, None] * P + p
        tl.store(place, (x * dt[:, :, None]).to(items.dtype.element_ty), mask=live)


@triton.jit
def _score(
    projected, ring, keys, taps, tap_bias, positions, origins, query, scores, row, share, shares, W,
    H: tl.constexpr, P: tl.constexpr, N: tl.constexpr, K: tl.constexpr, RING: tl.constexpr,
    SPAN: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """C . B_s for a share of a row's window; the first share also takes in the new B and C."""
    inner: tl.constexpr = H * P
    width: tl.constexpr = inner + 2 * N
    n = tl.arange(0, N)
    span = share * SPAN + tl.arange(0, SPAN)
    pos = tl.load(positions + row).to(tl.int32)
    past = tl.minimum(pos - tl.load(origins + row), W - 1)
    ring += row * RING * width
    projected += row * (2 * inner + 2 * N + H) + 2 * inner + n
    keys += row * W * N + n
    newest = taps + (K - 1) * width + inner + n
    bs = tl.load(keys[None, :] + span[:, None] * N, mask=(span < past)[:, None], other=0.0)
    known_b, tap_b = (
        remembered(ring, taps, tap_bias, pos, 0, inner + n, width, K, RING),
        tl.load(newest).to(tl.float32),
    )
    known_c, tap_c = (
        remembered(ring, taps, tap_bias, pos, 0, inner + N + n, width, K, RING),
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
            at = ring + (pos % RING) * width + inner + n
            tl.store(at, new_b)
            tl.store(at + N, new_c)
            tl.store(keys + past * N, b.to(keys.dtype.element_ty))
            tl.store(query + row * N + n, c)
            tl.store(scores + row * W + past, tl.sum(b * c, 0))
