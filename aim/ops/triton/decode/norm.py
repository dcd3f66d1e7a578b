"""What lies between two mixers: the residual, its norm, the modulation; and the item that a step
begins with.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from aim.ops.triton.decode.common import options, wait


@triton.jit
def _modulated(r, cond, gain, shift, d, inside, eps, D: tl.constexpr):
    """``rms_norm(r) * gain + shift``, the norm's weight being part of the gain."""
    more = tl.load(cond + shift + d, mask=inside, other=0.0)
    return _gained(r, cond + gain, d, inside, eps, D) + more.to(tl.float32)


@triton.jit
def _gained(r, gain, d, inside, eps, D: tl.constexpr):
    """``rms_norm(r) * gain``."""
    scale = 1.0 / tl.sqrt(tl.sum(r * r, 0) / D + eps)
    return r * scale * tl.load(gain + d, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _begin(
    codes, positions, origins, words, places, cond, cond_stride, residual, x, gain, shift,
    vocabulary, longest, offset, first, often, eps,
    D: tl.constexpr, BLOCK: tl.constexpr, W: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    line = tl.program_id(0)
    row, w = line // W, line % W
    d = tl.arange(0, BLOCK)
    inside = d < D
    wait(OVERLAP)
    pos = tl.load(positions + row).to(tl.int32)
    origin = tl.load(origins + row)
    if w == 0:
        full = pos - origin >= tl.where(origin == 0, first, often)
        moved = tl.where(pos <= 0, 0, tl.where(full, pos, origin))
        tl.store(origins + row, moved, mask=pos >= 0)
    pos += w
    cond += row.to(tl.int64) * cond_stride
    code = tl.minimum(tl.maximum(tl.load(codes + line), 0), vocabulary - 1)
    place = tl.minimum(tl.maximum(pos - 1 + offset, 0), longest - 1)
    is_code, is_class = d < tl.where(pos == 0, 0, D), d < tl.where(pos == 0, D, 0)
    r = tl.load(words + code * D + d, mask=is_code, other=0.0).to(tl.float32)
    r += tl.load(places + place * D + d, mask=is_code, other=0.0).to(tl.float32)
    r += tl.load(cond + d, mask=is_class, other=0.0).to(tl.float32)
    tl.store(residual + line * D + d, r, mask=inside)
    tl.store(
        x + line * D + d,
        _modulated(r, cond, gain, shift, d, inside, eps, D).to(x.dtype.element_ty),
        mask=inside,
    )


@triton.jit
def _add_norm(
    residual, update, squares, parts, inner, gate, cond, cond_stride, gain, shift, weight, x, eps,
    D: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr, SHARES: tl.constexpr,
    ADD: tl.constexpr, TWICE: tl.constexpr, W: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    d = tl.arange(0, BLOCK)
    inside = d < D
    cond += (row // W).to(tl.int64) * cond_stride
    wait(OVERLAP)
    r = tl.load(residual + row * D + d, mask=inside, other=0.0)
    if ADD:
        at = tl.arange(0, PARTS)
        mean = tl.sum(tl.load(squares + row * parts + at, mask=at < parts, other=0.0), 0) / inner
        u = tl.load(update + row * D + d, mask=inside, other=0.0).to(tl.float32)
        for share in tl.static_range(1, SHARES):
            u += tl.load(
                update + (share * tl.num_programs(0) + row) * D + d, mask=inside, other=0.0
            ).to(tl.float32)
        r += (
            u
            / tl.sqrt(mean + eps)
            * tl.load(cond + gate + d, mask=inside, other=0.0).to(tl.float32)
        )
        tl.store(residual + row * D + d, r, mask=inside)
    if TWICE:
        r = r / tl.sqrt(tl.sum(r * r, 0) / D + eps) * tl.load(weight + d, mask=inside, other=0.0)
    tl.store(
        x + row * D + d,
        _modulated(r, cond, gain, shift, d, inside, eps, D).to(x.dtype.element_ty),
        mask=inside,
    )


def _warps(width: int) -> int:
    return 4 if width <= 1024 else 8


def begin(
    codes: Tensor, positions: Tensor, origins: Tensor, words: Tensor, places: Tensor, cond: Tensor,
    residual: Tensor, x: Tensor, gain: int, shift: int, position_offset: int, first: int,
    often: int, eps: float, overlap: bool = False, width: int = 1,
) -> None:  # fmt: skip
    """The item that each row reads, as residual (R, D) float32 and, normed and modulated for the
    first layer, as x (R, D).

    codes, positions (S,) int64; words (V, D), places (num_tokens + 1, D); cond (S, C) with the
    class embedding at column 0 and the first layer's gain and shift at the columns given. Moves
    ``origins`` (S,) int32 on where ``fold`` has folded. With a ``width`` it is as many items of
    each row, codes (R width,).
    """
    lines, channels = residual.shape
    _begin[(lines,)](
        codes, positions, origins, words, places, cond, cond.stride(0), residual, x, gain, shift,
        words.shape[0], places.shape[0], position_offset, first, often, eps, channels,
        triton.next_power_of_2(channels), width, **options(overlap, num_warps=_warps(channels)),
    )  # fmt: skip


def add_norm(
    residual: Tensor, cond: Tensor, gain: int, shift: int, x: Tensor, eps: float,
    update: Tensor | None = None, squares: Tensor | None = None, inner: int = 1, gate: int = 0,
    twice: Tensor | None = None, overlap: bool = False, width: int = 1,
) -> None:  # fmt: skip
    """``residual += gate * update / rms(squares)``, where an update is given, then ``x =
    rms_norm(residual) * gain + shift``.

    residual (R, D) float32, update (shares, R, D) to be added up, squares (R, parts) whose sum over
    ``inner`` is the mean square, cond (S, C) with gate, gain and shift at the columns given.
    ``twice`` (D,) is the weight of a norm in between, for the final layer. With a ``width`` as many
    rows share one of cond.
    """
    rows, channels = residual.shape
    add = update is not None and squares is not None
    parts = squares.shape[1] if squares is not None else 1
    shares = len(update) if update is not None else 1
    _add_norm[(rows,)](
        residual, update if add else residual, squares if add else residual, parts, inner, gate,
        cond, cond.stride(0), gain, shift, residual if twice is None else twice, x, eps,
        channels, triton.next_power_of_2(channels), triton.next_power_of_2(parts), shares, add,
        twice is not None, width, **options(overlap, num_warps=_warps(channels)),
    )  # fmt: skip


def begin_reference(
    codes: Tensor, positions: Tensor, origins: Tensor, words: Tensor, places: Tensor, cond: Tensor,
    gain: int, shift: int, position_offset: int, first: int, often: int, eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """What ``begin`` computes for the first ``len(codes)`` rows: the new origins (R,), residual and
    x (R, D) float32.
    """
    rows, width = len(codes), words.shape[1]
    pos, origin, cond = positions[:rows], origins[:rows], cond[:rows]
    full = (pos > 0) & (pos - origin >= torch.where(origin == 0, first, often))
    moved = torch.where(pos == 0, 0, torch.where(full, pos, origin))
    place = (pos - 1 + position_offset).clamp(0, len(places) - 1)
    code = words[codes.clamp(0, len(words) - 1)].float() + places[place].float()
    residual = torch.where((pos == 0)[:, None], cond[:, :width].float(), code)
    return moved.to(origins.dtype), residual, _modulated_reference(residual, cond, gain, shift, eps)


def add_norm_reference(
    residual: Tensor, cond: Tensor, gain: int, shift: int, eps: float, update: Tensor | None = None,
    squares: Tensor | None = None, inner: int = 1, gate: int = 0, twice: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What ``add_norm`` computes: the new residual and x, both (R, D) float32."""
    rows, width = residual.shape
    if update is not None and squares is not None:
        scale = torch.rsqrt(squares.sum(1, keepdim=True) / inner + eps)
        residual = residual + cond[:rows, gate : gate + width] * update.float().sum(0) * scale
    normed = (
        residual if twice is None else torch.nn.functional.rms_norm(residual, (width,), twice, eps)
    )
    return residual, _modulated_reference(normed, cond[:rows], gain, shift, eps)


def _modulated_reference(r: Tensor, cond: Tensor, gain: int, shift: int, eps: float) -> Tensor:
    width = r.shape[1]
    return (
        torch.nn.functional.rms_norm(r, (width,), None, eps) * cond[:, gain : gain + width]
        + cond[:, shift : shift + width]
    )
