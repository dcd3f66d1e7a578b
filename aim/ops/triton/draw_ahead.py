"""The draw of a window of guesses as two Triton kernels, which wait for no host; ``aim.ahead`` has
the PyTorch twin and says what is computed.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from aim.ops.triton.decode.common import COLUMNS, wait
from aim.ops.triton.draw import block, draw_lines, launch, pick

INF: tl.constexpr = tl.constexpr(float("inf"))


@triton.jit
def _settle(
    codes, lines, starts, items, partner, settings, seed, limits, last, positions, counts, guesses,
    kept_lines, since, slots, T, room, G,
    V: tl.constexpr, BLOCK: tl.constexpr, W: tl.constexpr, LIMITED: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """How many of a row's W codes are settled; program i keeps the logits of the i-th, and makes
    the i-th guess of the pass after.
    """
    i, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    w, v = tl.arange(0, COLUMNS), tl.arange(0, BLOCK)
    wait(OVERLAP)
    other, start = tl.load(partner + row), tl.load(starts + row)
    if start < 0:
        tl.store(counts + row, 0)
    if (other < 0) | (start < 0):
        return
    drawn = tl.load(codes + row * W + w, mask=w < W, other=-3)
    guessed = tl.load(items + row * W + 1 + w, mask=w < W - 1, other=-2)
    kept = 1 + tl.min(tl.where(drawn == guessed, COLUMNS, w), 0)
    kept = tl.minimum(kept, (T - start).to(tl.int32))
    if LIMITED:
        kept = tl.minimum(kept, tl.load(limits + row))
    if i == 0:
        code = tl.sum(tl.where(w == kept - 1, drawn, 0), 0)
        tl.store(last + row, code)
        tl.store(last + other, code)
        tl.store(positions + row, start + kept)
        tl.store(positions + other, tl.load(starts + other) + kept)
        tl.store(counts + row, kept)
        tl.store(counts + other, kept)
    lines += row * W * V
    kept_lines += row * G * V
    if (i < kept) & (i + G >= kept):
        own = tl.load(lines + i * V + v, mask=v < V, other=0.0)
        tl.store(kept_lines + (start + i) % G * V + v, own, mask=v < V)
    if i < W - 1:
        after = kept + i  # counted from ``start``
        code = tl.sum(tl.where(w == after, drawn, 0), 0)
        if (after >= W) & (start + after < T):  # it enters the window
            above = after - G
            settled = (above < kept) & (start + above >= tl.load(since + row))
            source = tl.where(settled, above, kept - 1)
            if source < 0:
                score = tl.load(kept_lines + (start + source) % G * V + v, mask=v < V, other=0.0)
            else:
                score = tl.load(lines + source * V + v, mask=v < V, other=0.0)
            score = score.to(tl.float32)
            score = tl.where((v < V) & (score <= 0), score, -INF)  # it may be NaN
            peak = tl.max(score, 0)
            score -= tl.where(peak > -INF, peak, 0.0)
            code = pick(score, settings + row, slots, tl.load(seed + row), start + after, v, V)
            code = tl.minimum(code, V - 1).to(tl.int64)
        tl.store(guesses + row * room + i, code)
        tl.store(guesses + other * room + i, code)


def draw_window_fused(
    logits: Tensor, items: Tensor, starts: Tensor, limits: Tensor | None, guesses: Tensor,
    line: Tensor, since: Tensor, positions: Tensor, partner: Tensor, params: Tensor,
    weights: Tensor, seed: Tensor, explain: Tensor, last: Tensor, drawn: Tensor, notes: Tensor,
) -> Tensor:  # fmt: skip
    """``aim.ahead.draw_window``: logits (R, W, V) float32, items (R, W) and starts (R,) int64,
    limits (S,) int32, the buffers of ``aim.ahead.Guesses`` and those of ``aim.sampling.Rows`` ->
    counts (R,) int64.

    Unlike its twin it writes what is not settled, too, to ``drawn`` and ``notes``, behind a row's
    position.
    """
    rows, width, size = logits.shape
    assert width <= COLUMNS.value and rows <= len(partner) and logits.is_contiguous()
    assert params.stride(1) == 1 and drawn.is_contiguous() and notes.is_contiguous()
    assert line.is_contiguous() and guesses.is_contiguous() and items.is_contiguous()
    total, options = drawn.shape[1], launch(logits[0])
    counts, codes = starts.new_empty(rows), starts.new_empty(rows, width)
    lines = line.new_empty(rows, width, size)
    draw_lines[(rows * width,)](
        logits, positions, partner, params, weights, seed, explain, last, drawn, notes,
        codes, lines, size, params.stride(0), total, size, block(size), width, **options,
    )  # fmt: skip
    _settle[(width, rows)](
        codes, lines, starts, items, partner, params, seed, starts if limits is None else limits,
        last, positions, counts, guesses, line, since, params.stride(0), total, guesses.shape[1],
        line.shape[1], size, block(size), width, limits is not None, **options,
    )  # fmt: skip
    return counts
