"""What a decoding step of the Transformer does besides its products: the item that it reads,
attention, norms, the gate.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from aim.ops.attention import attend_one, rotate
from aim.ops.triton.decode.common import options, silu, wait
from aim.ops.triton.decode.norm import _gained, _warps
from aim.ops.triton.decode.rows import READ_AT_ONCE


@triton.jit
def _embed(
    codes,
    positions,
    words,
    classes,
    weight,
    residual,
    x,
    vocabulary,
    eps,
    D: tl.constexpr,
    BLOCK: tl.constexpr,
    W: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    line = tl.program_id(0)
    row = line // W
    d = tl.arange(0, BLOCK)
    inside = d < D
    wait(OVERLAP)
    pos = tl.load(positions + row).to(tl.int32) + line % W
    code = tl.minimum(tl.maximum(tl.load(codes + line), 0), vocabulary - 1)
    is_code, is_class = d < tl.where(pos == 0, 0, D), d < tl.where(pos == 0, D, 0)
    r = tl.load(words + code * D + d, mask=is_code, other=0.0).to(tl.float32)
    r += tl.load(classes + row.to(tl.int64) * D + d, mask=is_class, other=0.0).to(tl.float32)
    tl.store(residual + line * D + d, r, mask=inside)
    tl.store(
        x + line * D + d, _gained(r, weight, d, inside, eps, D).to(x.dtype.element_ty), mask=inside
    )


@triton.jit
def _add_norm(
    residual, update, weight, x, eps, D: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr
):
    row = tl.program_id(0)
    d = tl.arange(0, BLOCK)
    inside = d < D
    wait(OVERLAP)
    r = tl.load(residual + row * D + d, mask=inside, other=0.0) + tl.load(
        update + row * D + d, mask=inside, other=0.0
    ).to(tl.float32)
    tl.store(residual + row * D + d, r, mask=inside)
    tl.store(
        x + row * D + d, _gained(r, weight, d, inside, eps, D).to(x.dtype.element_ty), mask=inside
    )


@triton.jit
def _gate(pairs, out, F: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    row, f = tl.program_id(1), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    both = tl.program_id(0) * 2 * BLOCK + tl.arange(0, 2 * BLOCK)
    wait(OVERLAP)
    a, b = tl.split(
        tl.reshape(
            tl.load(pairs + row * 2 * F + both, mask=both < 2 * F, other=0.0).to(tl.float32),
            (BLOCK, 2),
        )
    )
    tl.store(out + row * F + f, (silu(a) * b).to(out.dtype.element_ty), mask=f < F)


@triton.jit
def turned(x, n, here, cos, sin):
    """Channels n of what is at x in neighbouring pairs, turned; 0 where it is not ``here``."""
    this = tl.load(x + n, mask=here, other=0.0).to(tl.float32)
    other = tl.load(x + (n ^ 1), mask=here, other=0.0).to(tl.float32)
    return this * cos + tl.where(n % 2 == 0, -other, other) * sin


@triton.jit
def _attend(
    projected, keys, values, turns, positions, out, scale,
    H: tl.constexpr, P: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """One head of a row; a block of items is asked for while the one before is used, the first one
    before waiting.
    """
    head, row = tl.program_id(0), tl.program_id(1)
    pos = tl.load(positions + row).to(tl.int32)
    n, s = tl.arange(0, P), tl.arange(0, BLOCK)
    start = (row * H + head).to(tl.int64) * C * P
    keys += start
    values += start
    tile = s[:, None] * P + n[None, :]
    old = (s < pos)[:, None]
    ks, vs = tl.load(keys + tile, mask=old, other=0.0), tl.load(values + tile, mask=old, other=0.0)
    angle = turns + tl.maximum(pos, 0) * P + n // 2 * 2
    cos, sin = tl.load(angle), tl.load(angle + 1)
    wait(OVERLAP)
    if pos >= 0:
        projected += row * 3 * H * P + head * P
        q = turned(projected, n, True, cos, sin) * scale
        k = turned(projected + H * P, n, True, cos, sin).to(keys.dtype.element_ty)
        v = tl.load(projected + 2 * H * P + n)
        tl.store(keys + pos * P + n, k)
        tl.store(values + pos * P + n, v)
        top = tl.sum(q * k.to(tl.float32), 0)
        own, total = 1.0, 1.0  # weights of the new item and of all, relative to exp(top)
        mixed = tl.zeros((BLOCK, P), tl.float32)
        for begin in range(0, pos, BLOCK):
            next_ks, next_vs = ks, vs
            if BLOCK < C:
                ahead = (begin + BLOCK + s < pos)[:, None]
                next_ks = tl.load(keys + tile + (begin + BLOCK) * P, mask=ahead, other=0.0)
                next_vs = tl.load(values + tile + (begin + BLOCK) * P, mask=ahead, other=0.0)
            scores = tl.where(
                begin + s < pos, tl.sum(ks.to(tl.float32) * q[None, :], 1), float("-inf")
            )
            higher = tl.maximum(top, tl.max(scores, 0))
            shrink, weights = tl.exp(top - higher), tl.exp(scores - higher)
            mixed = mixed * shrink + weights[:, None] * vs.to(tl.float32)
            own, total, top = own * shrink, total * shrink + tl.sum(weights, 0), higher
            ks, vs = next_ks, next_vs
        y = (tl.sum(mixed, 0) + own * v.to(tl.float32)) / total
        tl.store(out + (row * H + head) * P + n, y.to(out.dtype.element_ty))


def embed(
    codes: Tensor, positions: Tensor, words: Tensor, classes: Tensor, weight: Tensor,
    residual: Tensor, x: Tensor, eps: float, overlap: bool = False, width: int = 1,
) -> None:  # fmt: skip
    """The item that each row reads, as residual (R, D) float32 and, normed with ``weight`` (D,), as
    x (R, D); with a ``width`` as many of each row, codes (R width,).

    codes, positions (S,) int64, words (V, D); classes (S, D), read instead of a code at position 0.
    """
    lines, channels = residual.shape
    _embed[(lines,)](
        codes, positions, words, classes, weight, residual, x, words.shape[0], eps, channels,
        triton.next_power_of_2(channels), width, **options(overlap, num_warps=_warps(channels)),
    )  # fmt: skip


def add_norm(
    residual: Tensor, update: Tensor, weight: Tensor, x: Tensor, eps: float, overlap: bool = False
) -> None:
    """``residual += update``, then ``x = rms_norm(residual) * weight``: residual (R, D) float32,
    update and x (R, D), weight (D,).
    """
    rows, width = residual.shape
    _add_norm[(rows,)](
        residual,
        update,
        weight,
        x,
        eps,
        width,
        triton.next_power_of_2(width),
        **options(overlap, num_warps=_warps(width)),
    )


def gate(pairs: Tensor, out: Tensor, overlap: bool = False) -> None:
    """``out_i = silu(pairs_2i) * pairs_2i+1``: pairs (R, 2 F) -> out (R, F)."""
    rows, features = out.shape
    block = min(512, triton.next_power_of_2(features))
    _gate[(triton.cdiv(features, block), rows)](
        pairs, out, features, block, **options(overlap, num_warps=4)
    )


def attend(
    projected: Tensor, keys: Tensor, values: Tensor, turns: Tensor, positions: Tensor, out: Tensor,
    overlap: bool = False
) -> None:  # fmt: skip
    """One item of every row that is not idle: written to the cache, then attending to itself and to
    all before it.

    projected (R, 3 D) is q, k, v of the new item; keys and values (S, H, C, P), of which a row's
    first ``positions[r]`` items are read and the next one is written; turns (T, P / 2, 2) float32
    (``ops.attention.rotary_table``); positions (S,) int64, negative where idle. Writes out (R, D)
    of rows that are not.
    """
    rows = projected.shape[0]
    _, heads, capacity, size = keys.shape
    block, warps = _plan(rows * heads)
    _attend[(heads, rows)](
        projected, keys, values, turns, positions, out, size**-0.5,
        heads, size, capacity, min(block, capacity), **options(overlap, num_warps=warps),
    )  # fmt: skip


def _plan(programs: int) -> tuple[int, int]:
    """Items of a block, and warps of a program: few programs read all at once, many hide each
    other's latency.
    """
    return (256, 8) if programs <= READ_AT_ONCE else (16, 1)


def embed_reference(
    codes: Tensor, positions: Tensor, words: Tensor, classes: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What ``embed`` computes for the first ``len(codes)`` rows: residual and x (R, D) float32."""
    rows = len(codes)
    fresh = (positions[:rows] == 0)[:, None]
    residual = torch.where(
        fresh, classes[:rows].float(), words[codes.clamp(0, len(words) - 1)].float()
    )
    return residual, F.rms_norm(residual, (words.shape[1],), weight, eps)


def gate_reference(pairs: Tensor) -> Tensor:
    """What ``gate`` computes, float32."""
    return F.silu(pairs[:, ::2].float()) * pairs[:, 1::2].float()


def attend_reference(
    projected: Tensor, keys: Tensor, values: Tensor, turns: Tensor, positions: Tensor
) -> Tensor:
    """What ``attend`` computes: the new cache in place, and out (R, D) float32, zero where a row is
    idle.
    """
    rows, heads = len(projected), keys.shape[1]
    live = (positions[:rows] >= 0).nonzero().flatten()
    at = positions[live]
    q, k, v = (part.unflatten(-1, (heads, -1)) for part in projected[live].chunk(3, -1))
    q, k = rotate(q, turns[at][:, None]), rotate(k, turns[at][:, None])
    keys[live, :, at], values[live, :, at] = k.to(keys.dtype), v.to(values.dtype)
    inside = torch.arange(keys.shape[2], device=keys.device) <= at[:, None]
    old_keys, old_values = (
        torch.where(inside[:, None, :, None], part[live], 0) for part in (keys, values)
    )
    out = projected.new_zeros(rows, projected.shape[1] // 3, dtype=torch.float32)
    out[live] = attend_one(q, old_keys, old_values, at + 1, keys.shape[2]).flatten(1)
    return out
