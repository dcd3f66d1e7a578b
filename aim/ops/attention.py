"""Attention with a 2-D rotary embedding (LlamaGen; arXiv 2104.09864), over a whole sequence and for one new item a row."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

BLOCK = 64  # items that one new item attends to at a time, so that its sums do not depend on how long other rows are


def capacity(items: int) -> int:
    """Room for ``items`` in whole blocks."""
    return -(-items // BLOCK) * BLOCK


@lru_cache(maxsize=8)
def rotary_table(grid: int, head_dim: int, base: float, device: torch.device) -> Tensor:
    """Cosine and sine of each item's angles (1 + grid^2, head_dim / 2, 2) float32; of the class, the first item, zeros: no rotation at all.

    The first half of the angles turns with a code's row, the second with its column; frequencies ``base^(-4 i / head_dim)``.
    """
    quarter = head_dim // 4
    with torch.inference_mode(False), torch.no_grad():
        # on the CPU, as the released code: the same bits on every device
        frequencies = 1.0 / base ** (torch.arange(0, head_dim // 2, 2)[:quarter].float() / (head_dim // 2))
        angles = torch.outer(torch.arange(grid), frequencies)  # (grid, quarter)
        both = torch.cat([angles[:, None].expand(-1, grid, -1), angles[None].expand(grid, -1, -1)], -1)  # (row, column, head_dim / 2)
        table = torch.stack([both.cos(), both.sin()], -1).flatten(0, 1)
        return torch.cat([torch.zeros_like(table[:1]), table]).to(device)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Channels of x (..., head_dim) in neighbouring pairs, turned by ``turns`` (..., head_dim / 2, 2), which broadcasts; float32."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = turns.unbind(-1)
    return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention as written: q, k, v (B, H, T, head_dim) float32 -> (B, H, T, head_dim)."""
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(-1) @ v


def attend_one(q: Tensor, keys: Tensor, values: Tensor, counts: Tensor, filled: int) -> Tensor:
    """One query a row: q (R, H, head_dim) float32, keys and values (R, H, C, head_dim) -> (R, H, head_dim) float32.

    Row r attends to its first ``counts[r]`` items, at least one; none has more than ``filled``, and nothing beyond that, rounded up to
    whole blocks, is read. What lies between must be finite. A row's bits do not depend on the others.
    """
    rows, heads, size = q.shape
    blocks = -(-filled // BLOCK)
    keys, values = (part[:, :, : blocks * BLOCK].float().reshape(-1, BLOCK, size) for part in (keys, values))  # (R H blocks, BLOCK, head_dim)
    each = (q * size**-0.5)[:, :, None].expand(-1, -1, blocks, -1).reshape(-1, size, 1)
    scores = torch.bmm(keys, each).view(rows, heads, blocks * BLOCK)
    beyond = torch.arange(blocks * BLOCK, device=q.device) >= counts[:, None]
    scores = scores.masked_fill(beyond[:, None], -torch.inf)
    weights = torch.exp(scores - scores.amax(-1, keepdim=True)).view(-1, 1, BLOCK)
    # block by block, each in the same order however many there are; what comes after a row's end adds zeros
    total = weights.view(rows, heads, blocks, BLOCK).sum(-1).cumsum(-1)[..., -1:]
    mixed = torch.bmm(weights, values).view(rows, heads, blocks, size).cumsum(2)[:, :, -1]
    return mixed / total
