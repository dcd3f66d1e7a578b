"""The kernel that brings the state up to date with the window, in every layer at once; see
``ops.window``.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from aim.ops.triton.decode.common import dot, options, wait
from aim.ops.triton.decode.rows import FEW_FOLDED
from aim.ops.window import Window


@triton.jit
def _fold(
    items, keys, decay, base, positions, origins, counts, slots, layers, first, often, W,
    H: tl.constexpr, P: tl.constexpr, N: tl.constexpr, HEADS: tl.constexpr, LAYERS: tl.constexpr,
    SPAN: tl.constexpr, COUNTED: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    group, row = tl.program_id(0), tl.program_id(1)
    wait(OVERLAP)
    pos = tl.load(positions + row).to(tl.int32)
    origin = tl.load(origins + row)
    count = pos - origin + 1
    if COUNTED:
        count += tl.load(counts + row).to(tl.int32) - 1
    if (pos >= 0) & (count >= tl.where(origin == 0, first, often)):
        p, n, span = tl.arange(0, P), tl.arange(0, N), tl.arange(0, SPAN)
        for i in range(HEADS * LAYERS):
            layer = tl.program_id(2) * LAYERS + i // HEADS
            if layer < layers:
                at = layer.to(tl.int64) * slots + row
                block = at * H + group * HEADS + i % HEADS
                here = base + (block * P + p[:, None]) * N + n[None, :]
                last = tl.load(decay + block * W + count - 1)
                state = tl.load(here, mask=n[None, :] < tl.where(origin > 0, N, 0), other=0.0).to(
                    tl.float32
                ) * tl.exp(last)
                for start in range(0, count, SPAN):
                    s = start + span
                    old = s < count
                    us = tl.load(
                        items + (block * W + s[:, None]) * P + p[None, :],
                        mask=old[:, None],
                        other=0.0,
                    )
                    bs = tl.load(
                        keys + (at * W + s[:, None]) * N + n[None, :], mask=old[:, None], other=0.0
                    )
                    ls = tl.load(decay + block * W + s, mask=old, other=0.0)
                    us = us.to(tl.float32) * tl.where(old, tl.exp(last - ls), 0.0)[:, None]
                    state = dot(tl.trans(us).to(bs.dtype), bs, state)
                tl.store(here, state.to(base.dtype.element_ty))


def fold(
    windows: Window,
    positions: Tensor,
    origins: Tensor,
    rows: int,
    first: int,
    often: int,
    overlap: bool = False,
    counts: Tensor | None = None,
) -> None:
    """Bring h up to date in every layer of the rows whose window is full, before their positions
    advance: by one, or by ``counts`` (R,), which may take them beyond it.

    ``windows`` has the layers in front. ``first`` is how many items a window holds while its origin
    is 0, ``often`` afterwards. The next step's ``origins`` are to be what they were, or the
    position where a fold happened (``models.aim.gpu`` sees to it).
    """
    layers, slots, count, channels, size = windows.base.shape
    # enough programs for the GPU when few rows fold, few enough that a step in which none does
    # loses little
    few = rows * count <= FEW_FOLDED
    heads, each = (1, 4) if few else (4 if count % 4 == 0 else 1, layers)
    _fold[(count // heads, rows, triton.cdiv(layers, each))](
        windows.items, windows.keys, windows.decay, windows.base, positions, origins,
        positions if counts is None else counts, slots, layers, first, often,
        windows.keys.shape[2], count, channels, size, heads, each, 16, counts is not None,
        **options(overlap, num_warps=4),
    )  # fmt: skip
