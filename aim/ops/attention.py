"""Attention with a 2-D rotary embedding (LlamaGen; arXiv 2104.09864), over a whole sequence and for
one new item a row.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

BLOCK = 32  # items: what a new item reads is rounded up to a multiple of this
# elements: below 400 a product has a kernel of its own in PyTorch, with other last bits
SMALLEST = 512


def capacity(items: int) -> int:
    """Room for ``items`` in whole blocks."""
    return -(-items // BLOCK) * BLOCK


@lru_cache(maxsize=8)
def rotary_table(grid: int, head_dim: int, base: float, device: torch.device) -> Tensor:
    """Cosine and sine of each item's angles (1 + grid^2, head_dim / 2, 2) float32; of the class,
    the first item, zeros: no rotation at all.

    The first half of the angles turns with a code's row, the second with its column; frequencies
    ``base^(-4 i / head_dim)``.
    """
    quarter = head_dim // 4
    with torch.inference_mode(False), torch.no_grad():
        # on the CPU, as the official code: the same bits on every device
        frequencies = 1.0 / base ** (
            torch.arange(0, head_dim // 2, 2)[:quarter].float() / (head_dim // 2)
        )
        angles = torch.outer(torch.arange(grid), frequencies)  # (grid, quarter)
        # of shape (row, column, head_dim / 2)
        both = torch.cat(
            [angles[:, None].expand(-1, grid, -1), angles[None].expand(grid, -1, -1)], -1
        )
        table = torch.stack([both.cos(), both.sin()], -1).flatten(0, 1)
        return torch.cat([torch.zeros_like(table[:1]), table]).to(device)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Channels of x (..., head_dim) in neighbouring pairs, turned by ``turns`` (..., head_dim / 2,
    2), which broadcasts; float32.
    """
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = turns.unbind(-1)
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention as written: q, k, v (B, H, T, head_dim) float32 -> (B, H, T, head_dim)."""
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(-1) @ v


def attend_one(q: Tensor, keys: Tensor, values: Tensor, counts: Tensor, filled: int) -> Tensor:
    """One query a row: q (R, H, head_dim) float32, keys and values (R, H, C, head_dim) -> (R, H,
    head_dim) float32.

    Row r attends to its first ``counts[r]`` items, at least one; none has more than ``filled``, and
    nothing beyond ``reach`` of that is read. What lies between must be finite. A row's bits do not
    depend on the others.
    """
    rows, heads, size = q.shape
    reached = reach(filled, keys.shape[2], size)
    keys, values = (
        part[:, :, :reached].float().reshape(rows * heads, reached, size) for part in (keys, values)
    )
    return attend_reached(
        q.reshape(rows * heads, 1, size), keys, values, hide(counts, heads, reached)
    ).view(q.shape)


def attend_reached(q: Tensor, keys: Tensor, values: Tensor, hidden: Tensor) -> Tensor:
    """The same of N = R H rows and heads: q (N, 1, head_dim), keys and values (N, n, head_dim) ->
    (N, 1, head_dim), all float32.

    ``hidden`` (N, 1, n) comes from ``hide``, and n from ``reach``.
    """
    scores = torch.baddbmm(hidden, q, keys.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    return torch.bmm(scores.softmax(-1), values)


def hide(counts: Tensor, heads: int, reached: int) -> Tensor:
    """What is added to scores (R H, 1, reached): minus infinity beyond a row's first ``counts[r]``
    items, else 0.
    """
    beyond = torch.arange(reached, device=counts.device) >= counts[:, None, None]
    hidden = torch.zeros(beyond.shape, device=counts.device).masked_fill_(beyond, -torch.inf)
    return hidden[:, None].expand(-1, heads, -1, -1).reshape(-1, 1, reached)


def reach(filled: int, room: int, size: int) -> int:
    """How many of ``room`` items, a ``capacity``, are read where ``filled`` are there, in heads of
    ``size`` channels.

    Whole blocks, for the order in which they are summed is the same however many there are; in
    heads of few channels several, as PyTorch computes the smallest products in another order.
    Everything where even so bits depend on it.
    """
    if room <= BLOCK or not _can_reach(size):
        return room
    return min(room, max(capacity(filled), capacity(-(-SMALLEST // size))))


@lru_cache(maxsize=16)
def _can_reach(size: int) -> bool:
    """Whether a row's bits are the same here however many items beyond its own are read, and
    however many rows there are.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    least, rows = capacity(-(-SMALLEST // size)), 4
    room = least + rows * BLOCK
    q, keys, values = (
        torch.randn(rows, n, size, generator=generator, device="cpu") for n in (1, room, room)
    )
    counts = torch.arange(rows, device="cpu") * BLOCK + BLOCK // 2

    def attended(few: int, reached: int) -> Tensor:
        return attend_reached(
            q[:few], keys[:few, :reached], values[:few, :reached], hide(counts[:few], 1, reached)
        )

    want = attended(rows, room)
    nearer = [
        (few, reached)
        for few in range(1, rows + 1)
        for reached in range(max(least, few * BLOCK), room, BLOCK)
    ]
    return all(torch.equal(attended(few, reached), want[:few]) for few, reached in nearer)
