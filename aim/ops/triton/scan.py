"""Mamba-2's sequence mixing as one masked product, for training on sequences of a few hundred
items.

``y_i = D x_i + sum_{j <= i} gram_ij exp(l_i - m_j) x_j`` for every head, where ``gram_ij = C_i .
B_j`` is shared by all heads, l is the running sum of ``dt A`` and ``m = l - log dt`` (the quadratic
form of arXiv 2405.21060, section 3.4). The Triton kernels never store a decay matrix;
``mix_reference`` is their readable twin. Needs Triton; ``ops.scan`` imports it when it does.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import custom_op

BLOCK = 64


def mix_reference(gram: Tensor, x: Tensor, log_row: Tensor, log_col: Tensor, D: Tensor) -> Tensor:
    """The definition. gram (B, T, T), x (B, T, H, P), log_row l and log_col m (B, H, T) and D (H,)
    float32 -> (B, T, H, P).
    """
    length = x.shape[1]
    mask = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
    # of shape (B, H, T, T)
    decay = (log_row[..., :, None] - log_col[..., None, :]).masked_fill(~mask, -torch.inf).exp()
    mixed = torch.einsum("bhij,bjhp->bihp", (gram.unsqueeze(1) * decay).to(x.dtype), x)
    return mixed + x * D[:, None].to(x.dtype)


@triton.jit
def _weights(gram, log_row, log_col, at, head, rows, cols, T):
    """Rows by columns of gram and of the masked decay, float32, zero outside."""
    inside = (rows[:, None] < T) & (rows[:, None] >= cols[None, :])
    l = tl.load(log_row + head * T + rows, mask=rows < T, other=0.0)
    m = tl.load(log_col + head * T + cols, mask=cols < T, other=0.0)
    decay = tl.where(inside, tl.exp(l[:, None] - m[None, :]), 0.0)
    g = tl.load(gram + at * T * T + rows[:, None] * T + cols[None, :], mask=inside, other=0.0)
    return g.to(tl.float32), decay


@triton.jit
def _tile(base, stride_b, stride_t, at, head, items, T, P: tl.constexpr):
    """(items, P) of one head, zero outside."""
    where = base + at * stride_b + items[:, None] * stride_t + head * P + tl.arange(0, P)[None, :]
    return tl.load(where, mask=items[:, None] < T, other=0.0)


@triton.jit
def _forward(
    gram,
    x,
    log_row,
    log_col,
    D,
    y,
    T,
    H,
    x_b,
    x_t,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    i, head, at = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    rows = i * BLOCK + tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK, P), tl.float32)
    for j in range(0, i + 1):
        cols = j * BLOCK + tl.arange(0, BLOCK)
        g, decay = _weights(gram, log_row, log_col, at, at * H + head, rows, cols, T)
        xs = _tile(x, x_b, x_t, at, head, cols, T, P)
        acc += tl.dot((g * decay).to(xs.dtype), xs, input_precision=PRECISION)
    acc += tl.load(D + head) * _tile(x, x_b, x_t, at, head, rows, T, P).to(tl.float32)
    out = y + at * T * H * P + rows[:, None] * H * P + head * P + tl.arange(0, P)[None, :]
    tl.store(out, acc.to(y.dtype.element_ty), mask=rows[:, None] < T)


@triton.jit
def _grad_x(
    gram, x, log_row, log_col, D, y, dy, dx, dl, dm, dD, T, H, x_b, x_t, P: tl.constexpr,
    BLOCK: tl.constexpr, PRECISION: tl.constexpr
):  # fmt: skip
    j, head, at = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    cols = j * BLOCK + tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK, P), tl.float32)
    for i in range(j, tl.cdiv(T, BLOCK)):
        rows = i * BLOCK + tl.arange(0, BLOCK)
        g, decay = _weights(gram, log_row, log_col, at, at * H + head, rows, cols, T)
        dys = _tile(dy, T * H * P, H * P, at, head, rows, T, P)
        acc += tl.dot(tl.trans(g * decay).to(dys.dtype), dys, input_precision=PRECISION)
    xs = _tile(x, x_b, x_t, at, head, cols, T, P).to(tl.float32)
    dys = _tile(dy, T * H * P, H * P, at, head, cols, T, P).to(tl.float32)
    ys = _tile(y, T * H * P, H * P, at, head, cols, T, P).to(tl.float32)
    own, d = tl.sum(xs * dys, 1), tl.load(D + head)
    item = (at * H + head) * T + cols
    tl.store(dl + item, tl.sum(ys * dys, 1) - d * own, mask=cols < T)
    tl.store(dm + item, -tl.sum(xs * acc, 1), mask=cols < T)
    tl.store(dD + item, own, mask=cols < T)
    acc += d * dys
    out = dx + at * T * H * P + cols[:, None] * H * P + head * P + tl.arange(0, P)[None, :]
    tl.store(out, acc.to(dx.dtype.element_ty), mask=cols[:, None] < T)


@triton.jit
def _grad_gram(
    x,
    log_row,
    log_col,
    dy,
    dgram,
    T,
    H,
    x_b,
    x_t,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    i, j, at = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    rows = i * BLOCK + tl.arange(0, BLOCK)
    cols = j * BLOCK + tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK, BLOCK), tl.float32)
    if j <= i:
        inside = (rows[:, None] < T) & (rows[:, None] >= cols[None, :])
        for head in range(H):
            dys = _tile(dy, T * H * P, H * P, at, head, rows, T, P)
            xs = _tile(x, x_b, x_t, at, head, cols, T, P)
            l = tl.load(log_row + (at * H + head) * T + rows, mask=rows < T, other=0.0)
            m = tl.load(log_col + (at * H + head) * T + cols, mask=cols < T, other=0.0)
            decay = tl.where(inside, tl.exp(l[:, None] - m[None, :]), 0.0)
            acc += tl.dot(dys, tl.trans(xs), input_precision=PRECISION) * decay
    out = dgram + at * T * T + rows[:, None] * T + cols[None, :]
    tl.store(out, acc.to(dgram.dtype.element_ty), mask=(rows[:, None] < T) & (cols[None, :] < T))


def _precision(x: Tensor) -> str:
    return "ieee" if x.dtype == torch.float32 else "tf32"  # only read for float32 operands


@custom_op("aim::mix", mutates_args=())
def mix(gram: Tensor, x: Tensor, log_row: Tensor, log_col: Tensor, D: Tensor) -> Tensor:
    """``mix_reference`` by a Triton kernel, differentiable: the same shapes; gram and the logs
    contiguous, P a power of two >= 16.
    """
    rows, length, heads, channels = x.shape
    assert (
        x.stride(3) == 1
        and x.stride(2) == channels
        and gram.is_contiguous()
        and log_row.is_contiguous()
        and log_col.is_contiguous()
    )
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    grid = (triton.cdiv(length, BLOCK), heads, rows)
    _forward[grid](
        gram,
        x,
        log_row,
        log_col,
        D,
        y,
        length,
        heads,
        x.stride(0),
        x.stride(1),
        channels,
        BLOCK,
        _precision(x),
    )
    return y


@mix.register_fake
def _(gram: Tensor, x: Tensor, log_row: Tensor, log_col: Tensor, D: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@custom_op("aim::mix_backward", mutates_args=())
def mix_backward(
    gram: Tensor, x: Tensor, log_row: Tensor, log_col: Tensor, D: Tensor, y: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``mix`` with respect to gram, x, log_row, log_col, and, of every item, D: (B, H,
    T).
    """
    rows, length, heads, channels = x.shape
    dy = dy.contiguous()
    dx, dgram, dl, dm, dD = (
        torch.empty_like(dy),
        torch.empty_like(gram),
        *(torch.empty_like(log_col) for _ in range(3)),
    )
    strides, blocks = (x.stride(0), x.stride(1)), triton.cdiv(length, BLOCK)
    _grad_x[(blocks, heads, rows)](
        gram, x, log_row, log_col, D, y, dy, dx, dl, dm, dD, length, heads, *strides, channels,
        BLOCK, _precision(x)
    )  # fmt: skip
    _grad_gram[(blocks, blocks, rows)](
        x, log_row, log_col, dy, dgram, length, heads, *strides, channels, BLOCK, _precision(x)
    )
    return dgram, dx, dl, dm, dD


@mix_backward.register_fake
def _(
    gram: Tensor, x: Tensor, log_row: Tensor, log_col: Tensor, D: Tensor, y: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dl, dm, dD = (torch.empty_like(log_col) for _ in range(3))
    return torch.empty_like(gram), x.new_empty(x.shape), dl, dm, dD


def _save(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor
) -> None:
    ctx.save_for_backward(*inputs, output)


def _differentiate(ctx: torch.autograd.function.FunctionCtx, dy: Tensor) -> tuple[Tensor, ...]:
    gram, x, log_row, log_col, D, y = ctx.saved_tensors  # type: ignore[attr-defined]
    dgram, dx, dl, dm, dD = torch.ops.aim.mix_backward(gram, x, log_row, log_col, D, y, dy)
    return dgram, dx, dl, dm, dD.sum((0, 2))


mix.register_autograd(_differentiate, setup_context=_save)


def _logs(dt: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
    """(B, H, T) each. The running sum is a product with a triangle of ones: PyTorch 2.11's compiler
    fails on a cumsum here.
    """
    length = dt.shape[1]
    with torch.autocast(dt.device.type, enabled=False):
        sums = torch.ones(length, length, device=dt.device, dtype=dt.dtype).triu()
        log_row = torch.matmul((dt * A).transpose(1, 2), sums)
    return log_row, log_row - dt.clamp(min=1e-20).log().transpose(1, 2)


def scan_mixing(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """``scan_chunked`` without the last state, by ``mix``; the same shapes."""
    log_row, log_col = (log.contiguous() for log in _logs(dt, A))
    gram = torch.matmul(C, B.transpose(1, 2)).contiguous()  # (B, T, T)
    return torch.ops.aim.mix(gram, x, log_row, log_col, D.float())
