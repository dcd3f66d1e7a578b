"""What a pass over guesses begins and ends with, as Triton kernels that wait for no host;
``aim.ahead`` has the PyTorch twins and says what is computed.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from aim.ops.triton.decode.common import COLUMNS, options, overlaps, wait
from aim.ops.triton.draw import block, draw_lines, launch


@triton.jit
def _read(last, guesses, positions, items, starts, T, room, W: tl.constexpr, OVERLAP: tl.constexpr):
    row, w = tl.program_id(0), tl.arange(0, COLUMNS)
    wait(OVERLAP)
    pos = tl.load(positions + row)
    tl.store(starts + row, tl.where(pos < T, pos, -1))
    code = tl.load(guesses + row * room + w - 1, mask=(w > 0) & (w < W), other=0)
    tl.store(items + row * W + w, tl.where(w == 0, tl.load(last + row), code), mask=w < W)


@triton.jit
def _settle(
    made, starts, items, partner, last, positions, counts, guesses, T, room,
    W: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """How many of a row's W codes are settled, and what the next pass reads."""
    row, w = tl.program_id(0).to(tl.int64), tl.arange(0, COLUMNS)
    wait(OVERLAP)
    other, start = tl.load(partner + row), tl.load(starts + row)
    if start < 0:
        tl.store(counts + row, 0)
    elif other >= 0:
        drawn = tl.load(made + row * W + w, mask=w < W, other=-3)
        guessed = tl.load(items + row * W + 1 + w, mask=w < W - 1, other=-2)
        kept = 1 + tl.min(tl.where(drawn == guessed, COLUMNS, w), 0)
        kept = tl.minimum(kept, (T - start).to(tl.int32))
        code = tl.sum(tl.where(w == kept - 1, drawn, 0), 0)
        following = tl.load(starts + other) + kept
        after = kept + w  # counted from ``start``
        entered = tl.num_programs(0) * W - W  # from a code to what is guessed W behind it
        place = row * W + after + tl.where(after < W, 0, entered)
        here = w < tl.where(after < T - start, W - 1, 0)
        coming = tl.load(made + place, mask=here, other=0)
        for one in tl.static_range(2):
            whose = row if one == 0 else other
            tl.store(last + whose, code)
            tl.store(positions + whose, start + kept if one == 0 else following)
            tl.store(counts + whose, kept)
            tl.store(guesses + whose * room + w, coming, mask=w < W - 1)


def read_window(
    last: Tensor, guesses: Tensor, positions: Tensor, total: int, rows: int, width: int
) -> tuple[Tensor, Tensor]:
    """``aim.ahead.read_window``: items (rows, width) and where they begin (rows,), both int64."""
    items, starts = last.new_empty(rows, width), last.new_empty(rows)
    _read[(rows,)](
        last, guesses, positions, items, starts, total, guesses.shape[1], width,
        **options(overlaps(last.device), num_warps=1),
    )  # fmt: skip
    return items, starts


def draw_window_fused(
    logits: Tensor, items: Tensor, starts: Tensor, guesses: Tensor, line: Tensor, since: Tensor,
    positions: Tensor, partner: Tensor, params: Tensor, weights: Tensor, seed: Tensor,
    explain: Tensor, last: Tensor, drawn: Tensor, notes: Tensor,
) -> Tensor:  # fmt: skip
    """``aim.ahead.draw_window``: logits (R, W, V) float32, items (R, W) and starts (R,) int64, the
    buffers of ``aim.ahead.Guesses`` and those of ``aim.sampling.Rows`` -> counts (R,) int64.

    Unlike its twin it writes what is not settled, too, to ``drawn``, ``notes`` and ``line``, behind
    a row's position.
    """
    rows, width, size = logits.shape
    assert width <= COLUMNS.value and rows <= len(partner) and logits.is_contiguous()
    assert params.stride(1) == 1 and drawn.is_contiguous() and notes.is_contiguous()
    assert line.is_contiguous() and guesses.is_contiguous() and items.is_contiguous()
    total = drawn.shape[1]
    counts, made = starts.new_empty(rows), starts.new_empty(2, rows, width)
    draw_lines[(rows * width,)](
        logits, positions, partner, params, weights, seed, explain, last, drawn, notes,
        made, line, since, size, params.stride(0), total, line.shape[1], size, block(size), width,
        **launch(logits[0]),
    )  # fmt: skip
    _settle[(rows,)](
        made, starts, items, partner, last, positions, counts, guesses, total, guesses.shape[1],
        width, **options(overlaps(logits.device), num_warps=1),
    )  # fmt: skip
    return counts
