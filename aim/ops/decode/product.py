"""The products of a layer at a few dozen rows, where a step is still as long as it takes to read the weights."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from aim.ops.decode.common import dot, options, wait

MOST = 64  # rows; above, a library's products are faster


@triton.jit
def _product(
    x, weight, out, R, F, K: tl.constexpr, ROWS: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EACH: tl.constexpr,
    STAGES: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    """BN features of every row, summed over EACH pieces of BK."""
    share = tl.program_id(1)
    f, r = tl.program_id(0) * BN + tl.arange(0, BN), tl.arange(0, ROWS)
    k = share * EACH * BK + tl.arange(0, BK)
    weight += f[:, None] * K + k[None, :]
    x += r[None, :] * K + k[:, None]
    known, live = (f < F)[:, None], (r < R)[None, :]
    w = tl.load(weight, mask=known, other=0.0)  # on its way while the kernel before ends
    wait(OVERLAP)
    acc = dot(w, tl.load(x, mask=live, other=0.0), tl.zeros((BN, ROWS), tl.float32))
    for i in tl.range(1, EACH, num_stages=STAGES):
        w = tl.load(weight + i * BK, mask=known, other=0.0)
        acc = dot(w, tl.load(x + i * BK, mask=live, other=0.0), acc)
    tl.store(out + (share * R + r[None, :]) * F + f[:, None], acc.to(out.dtype.element_ty), mask=known & live)


def product(x: Tensor, weight: Tensor, out: Tensor, overlap: bool = False) -> None:
    """``x W^T`` in shares: x (R, K) of up to MOST rows, weight (F, K) -> out (S, R, F), whose sum over S it is; K a multiple of 16 S."""
    rows, length = x.shape
    shares, features = len(out), weight.shape[0]
    block, piece, stages, warps = _tile(rows, features, length // shares)
    _product[(triton.cdiv(features, block), shares)](
        x, weight, out, rows, features, length, max(16, triton.next_power_of_2(rows)), block, piece, length // shares // piece,
        stages, **options(overlap, num_warps=warps),
    )  # fmt: skip


def _tile(rows: int, features: int, length: int) -> tuple[int, int, int, int]:
    """Features of a program, what it sums at a time, stages, warps."""
    piece = 128
    while length % piece:
        piece //= 2
    return 64, piece, 4, 4


def out_shares(features: int, length: int) -> int:
    """Into how many shares a long product of few features is cut: enough programs for a GPU."""
    shares = 4
    while length % (16 * shares):
        shares //= 2
    return shares


def product_reference(x: Tensor, weight: Tensor) -> Tensor:
    """What the shares of ``product`` add up to, float32."""
    return x.float() @ weight.float().T
