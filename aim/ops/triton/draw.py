"""The draw as one Triton kernel: guidance, temperature, top-k, top-p, noise, what can be said about
the code. One program a row.

``aim.sampling`` has the PyTorch twin and says what is computed. Here nothing is sorted: after the
maximum is subtracted no logit is above 0, so the bits of -logit, read as an integer, grow as the
logit falls, and a threshold is found exactly by bisection on those integers (a logit's *depth*).
Multiplications and additions are not fused where the twin rounds twice. Needs Triton.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from aim.config import INDEX
from aim.ops import notes
from aim.ops.triton import runs_kernels
from aim.ops.triton.decode.common import INF, options, overlaps, wait
from aim.ops.triton.noise import gumbel, uniform

LONGEST = 65536  # codes, which a program holds in registers

LARGEST: tl.constexpr = tl.constexpr(torch.finfo(torch.float32).max)
DEEPEST: tl.constexpr = tl.constexpr(0x7F800000)  # the bits of infinity
NOTES: tl.constexpr = tl.constexpr(notes.NOTES)
LIKELIEST: tl.constexpr = tl.constexpr(notes.LIKELIEST)
# rows of the parameters
CFG_SCALE: tl.constexpr = tl.constexpr(INDEX["cfg_scale"])
TEMPERATURE: tl.constexpr = tl.constexpr(INDEX["temperature"])
TOP_K: tl.constexpr = tl.constexpr(INDEX["top_k"])
TOP_P: tl.constexpr = tl.constexpr(INDEX["top_p"])
MIN_P: tl.constexpr = tl.constexpr(INDEX["min_p"])
CFG_SCHEDULE: tl.constexpr = tl.constexpr(INDEX["cfg_schedule"])
CFG_FROM: tl.constexpr = tl.constexpr(INDEX["cfg_from"])
CFG_TO: tl.constexpr = tl.constexpr(INDEX["cfg_to"])


@triton.jit
def _two_rows(logits, stride, row, other, codes, V: tl.constexpr):
    """Conditional and unconditional logits (BLOCK,) float32, 0 beyond V."""
    cond = tl.load(logits + row * stride + codes, mask=codes < V, other=0.0)
    uncond = tl.load(logits + other * stride + codes, mask=codes < V, other=0.0)
    return cond.to(tl.float32), uncond.to(tl.float32)


@triton.jit
def _guidance(settings, weights, slots, position, T):
    """``sampling.guidance`` of one row."""
    schedule = tl.load(settings + CFG_SCHEDULE * slots).to(tl.int32)
    first, last = tl.load(settings + CFG_FROM * slots), tl.load(settings + CFG_TO * slots)
    on = (position >= first * T) & (position < last * T)
    weight = tl.where(on, tl.load(weights + schedule * T + position), 0.0)
    return tl.load(settings + CFG_SCALE * slots) * weight + (1.0 - weight)


@triton.jit
def _guide(cond, uncond, scale, codes, V: tl.constexpr):
    """``sampling.guide``; -inf beyond V, and +inf, which guidance never gives, where the difference
    is not finite.
    """
    difference = cond - uncond
    guided = tl.minimum(difference * scale + uncond, LARGEST)
    guided = tl.where(tl.abs(difference) < INF, guided, INF)
    return tl.where(codes < V, guided, -INF)


@triton.jit
def _top_k(depth, k):
    """A depth that k logits reach and, apart from ties, no more."""
    low, high = 0, DEEPEST
    while low < high:
        middle = low + ((high - low) >> 1)
        count = tl.sum((depth <= middle).to(tl.int32), 0)
        high = tl.where(count >= k, middle, high)
        low = tl.where(count < k, middle + 1, tl.where(count == k, middle, low))
    return high


@triton.jit
def _top_p(depth, weight, p, deepest):
    """The least depth, at most ``deepest``, down to which the weights are p of the whole."""
    enough = p * tl.sum(weight, 0)
    low, high = 0, deepest
    while low < high:
        middle = low + ((high - low) >> 1)
        reached = tl.sum(tl.where(depth <= middle, weight, 0.0), 0) >= enough
        high = tl.where(reached, middle, high)
        low = tl.where(reached, low, middle + 1)
    return high


@triton.jit
def _truncate(score, k, p, least, V: tl.constexpr):
    """``score`` of what top-k, then top-p, then min-p keep, -inf elsewhere; ``least`` as the rows
    hold it, a logarithm.
    """
    depth = score.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    deepest = tl.full((), DEEPEST, tl.int32)
    if (k > 0) & (k < V):
        deepest = _top_k(depth, k.to(tl.int32))
    if p < 1.0:
        deepest = _top_p(depth, tl.where(depth <= deepest, tl.exp(score), 0.0), p, deepest)
    return tl.where((depth <= deepest) & (score >= least), score, -INF)


@triton.jit
def _note(notes, logits, stride, row, other, scale, codes, code, peak, V: tl.constexpr):
    """Write what ``sampling.explain`` says about one code."""
    unknown = tl.where(code < 0, float("nan"), 0.0)
    cond, uncond = _two_rows(logits, stride, row, other, codes, V)
    left = tl.where(codes < V, cond - tl.max(tl.where(codes < V, cond, -INF), 0), -INF)
    right = tl.where(codes < V, uncond - tl.max(tl.where(codes < V, uncond, -INF), 0), -INF)
    weight = tl.exp(left)
    mass = tl.sum(weight, 0)
    apart = tl.sum(tl.where(weight > 0, weight * (left - right), 0.0), 0) / mass
    apart += tl.log(tl.sum(tl.exp(right), 0)) - tl.log(mass)
    tl.store(notes + 2, tl.maximum(apart, 0.0) + unknown)  # rounding goes below

    likely = _guide(cond, uncond, scale, codes, V) - peak
    weight = tl.exp(likely)
    mass = tl.sum(weight, 0)
    spread = tl.log(mass)
    tl.store(notes, tl.sum(tl.where(codes == code, likely, 0.0), 0) - spread + unknown)
    tl.store(
        notes + 1, spread - tl.sum(tl.where(weight > 0, weight * likely, 0.0), 0) / mass + unknown
    )
    for i in tl.static_range(LIKELIEST):
        value, best = tl.max(likely, 0, return_indices=True)
        tl.store(notes + 3 + i, value - spread + unknown)
        tl.store(
            notes + 3 + LIKELIEST + i, tl.where(value > -INF, best, -1).to(tl.float32) + unknown
        )
        likely = tl.where(codes == best, -INF, likely)


@triton.jit
def pick(score, settings, slots, seed, position, codes, V: tl.constexpr):
    """``sampling.pick`` of one row: guided logits (BLOCK,) less their maximum, -inf beyond V."""
    heat = tl.load(settings + TEMPERATURE * slots)
    noise = tl.where(heat > 0, gumbel(uniform(codes, seed, position)), 0.0)
    if heat > 0:
        if heat != 1.0:
            score = tl.div_rn(score, heat)
        k, p = tl.load(settings + TOP_K * slots), tl.load(settings + TOP_P * slots)
        least = tl.load(settings + MIN_P * slots)
        if (k > 0) | (p < 1.0) | (least > -INF):
            score = _truncate(score, k, p, least, V)
    return tl.argmax(score + noise, 0)


@triton.jit
def draw_lines(
    logits, positions, partner, settings, weights, seed, explain, last, drawn, notes,
    made, kept, since, stride, slots, T, G, V: tl.constexpr, BLOCK: tl.constexpr, W: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    """W of 1 moves rows on by a code. With more, each row has W lines of logits from its position
    on, and is left where it is: ``made`` (2, R, W) int64 is what they draw, and what is guessed of
    the positions W further; ``kept`` (S, G, V) float16 and ``since`` are of ``aim.ahead.Guesses``.
    """
    line = tl.program_id(0).to(tl.int64)
    row, w = line // W, line % W
    codes = tl.arange(0, BLOCK)
    wait(OVERLAP)
    other, position = tl.load(partner + row), tl.load(positions + row)
    if (other < 0) | (position < 0) | (position + w >= T):
        return
    following = tl.load(positions + other) + 1
    position += w
    other_line = other * W + w
    cond, uncond = _two_rows(logits, stride, line, other_line, codes, V)
    settings += row
    scale = _guidance(settings, weights, slots, position, T)

    score = _guide(cond, uncond, scale, codes, V)
    peak = tl.max(score, 0)
    score -= peak
    code = pick(score, settings, slots, tl.load(seed + row), position, codes, V)
    code = tl.where(peak < INF, tl.where(peak > -INF, code, 0), -1)

    tl.store(drawn + row * T + position, code)
    if W == 1:
        tl.store(last + row, code)
        tl.store(last + other, code)
        tl.store(positions + row, position + 1)
        tl.store(positions + other, following)
    else:
        tl.store(made + line, code)
        own = score.to(tl.float16)
        kept += row * G * V
        # two items of a pass may have the same place
        tl.store(kept + position % G * V + codes, own, mask=codes < tl.where(w + G >= W, V, 0))
        above = position + W - G
        if position + W < T:
            if (above < position - w) & (above >= tl.load(since + row)):
                own = tl.load(kept + above % G * V + codes, mask=codes < V, other=0.0)
            score = own.to(tl.float32)
            score = tl.where((codes < V) & (score <= 0), score, -INF)  # it may be NaN
            guess = pick(score, settings, slots, tl.load(seed + row), position + W, codes, V)
            tl.store(made + tl.num_programs(0) + line, tl.minimum(guess, V - 1).to(tl.int64))
    if tl.load(explain + row):
        _note(
            notes + (row * T + position) * NOTES,
            logits,
            stride,
            line,
            other_line,
            scale,
            codes,
            code,
            peak,
            V,
        )


def supports(logits: Tensor) -> bool:
    """Whether ``draw_fused`` takes these logits (R, V): at most 65,536 codes, on a GPU of this
    decade.
    """
    return logits.shape[1] <= LONGEST and runs_kernels(logits.device)


def draw_fused(
    logits: Tensor,
    positions: Tensor,
    partner: Tensor,
    params: Tensor,
    weights: Tensor,
    seed: Tensor,
    explain: Tensor,
    last: Tensor,
    drawn: Tensor,
    notes: Tensor,
) -> None:
    """``aim.sampling.draw_rows``: logits (R, V) float32 or bfloat16, each row contiguous, and the
    buffers of ``aim.sampling.Rows``.
    """
    rows, codes = logits.shape
    assert codes <= LONGEST and rows <= len(partner)
    assert (
        logits.stride(1) == params.stride(1) == 1
        and drawn.is_contiguous()
        and notes.is_contiguous()
    )
    draw_lines[(rows,)](
        logits, positions, partner, params, weights, seed, explain, last, drawn, notes,
        drawn, drawn, drawn, logits.stride(0), params.stride(0), drawn.shape[1], 1, codes,
        block(codes), 1, **launch(logits),
    )  # fmt: skip


def block(codes: int) -> int:
    """What a program takes of so many codes."""
    return max(triton.next_power_of_2(codes), 16)


def launch(logits: Tensor) -> dict[str, Any]:
    """Options of a kernel that draws from logits (R, V)."""
    warps = min(max(block(logits.shape[1]) // 256, 4), 32)
    return options(overlaps(logits.device), num_warps=warps, enable_fp_fusion=False)
