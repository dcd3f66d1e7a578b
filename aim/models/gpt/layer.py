"""A layer of LlamaGen's Transformer: attention with a cache, and a feed-forward network."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aim.config import GPTConfig
from aim.models.aim.mamba2 import RMSNorm
from aim.ops.activation import silu
from aim.ops.attention import attend, attend_one, rotate
from aim.ops.linear import Linear


class Attention(nn.Module):
    """Causal attention of all heads; ``wqkv`` makes queries, keys and values, in this order."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = config.n_head
        self.wqkv = Linear(config.d_model, 3 * config.d_model, bias=False)
        self.wo = Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor, turns: Tensor) -> Tensor:
        """x (B, T, D), turns (T, head_dim / 2, 2) -> (B, T, D)."""
        q, k, v = self._split(x)
        q, k = rotate(q, turns).to(v.dtype), rotate(k, turns).to(v.dtype)
        return self._join(F.scaled_dot_product_attention(q, k, v, is_causal=True))

    def prefill(self, x: Tensor, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``forward``, and the keys and values (B, H, T, head_dim)."""
        q, k, v = self._split(x)
        q, k = rotate(q, turns), rotate(k, turns)
        return self._join(attend(q, k.to(v.dtype).float(), v.float())), k, v

    def step(
        self,
        x: Tensor,
        turns: Tensor,
        keys: Tensor,
        values: Tensor,
        at: Tensor,
        idle: Tensor,
        filled: int,
    ) -> Tensor:
        """One item a row: x (R, D), turns (R, head_dim / 2, 2), at (R,) its position -> (R, D).

        Writes the item to ``keys`` and ``values`` (R, H, C, head_dim), except where ``idle``; no
        row has more than ``filled`` items.
        """
        # of shape (R, H, head_dim)
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in self.project(x).chunk(3, -1))
        q, k = rotate(q, turns[:, None]), rotate(k, turns[:, None])
        y = self._attend(q, k, v, keys, values, at, idle, filled)
        return self.wo(y.to(self.wo.weight.dtype))

    def advance(
        self,
        x: Tensor,
        turns: Tensor,
        keys: Tensor,
        values: Tensor,
        at: Tensor,
        idle: Tensor,
        filled: int,
    ) -> Tensor:
        """W items a row: x (R, W, D), turns (R, W, head_dim / 2, 2), at and idle (R, W) -> (R, W,
        D).

        As as many calls of ``step``: an item is written when those before it have attended, for it
        may be NaN, which hiding it does not hide.
        """
        # of shape (R, W, H, head_dim)
        q, k, v = (part.unflatten(-1, (self.heads, -1)) for part in self.project(x).chunk(3, -1))
        q, k = rotate(q, turns[:, :, None]), rotate(k, turns[:, :, None])
        y = [
            self._attend(q[:, i], k[:, i], v[:, i], keys, values, at[:, i], idle[:, i], filled)
            for i in range(x.shape[1])
        ]
        return self.wo(torch.stack(y, 1).to(self.wo.weight.dtype))

    def _attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        keys: Tensor,
        values: Tensor,
        at: Tensor,
        idle: Tensor,
        filled: int,
    ) -> Tensor:
        """One item a row, (R, H, head_dim) thrice -> (R, D) float32; see ``step``."""
        row = torch.arange(len(q), device=q.device)
        for part, new in ((keys, k), (values, v)):
            part[row, :, at] = torch.where(
                idle[:, None, None], part[row, :, at], new.to(part.dtype)
            )
        return attend_one(q, keys, values, at + 1, filled).flatten(1)

    def project(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., 3 D)."""
        return self.wqkv(x.to(self.wqkv.weight.dtype))

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.project(x).chunk(3, -1)
        )
        return q, k, v  # (B, H, T, head_dim) each

    def _join(self, y: Tensor) -> Tensor:
        return self.wo(y.transpose(1, 2).flatten(2).to(self.wo.weight.dtype))


class FeedForward(nn.Module):
    """SwiGLU: ``w2 (silu(w1 x) * w3 x)``."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.w1 = Linear(config.d_model, config.d_ffn, bias=False)
        self.w3 = Linear(config.d_model, config.d_ffn, bias=False)
        self.w2 = Linear(config.d_ffn, config.d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        x = x.to(self.w1.weight.dtype)
        return self.w2(silu(self.w1(x)) * self.w3(x))


class Layer(nn.Module):
    """Attention and a feed-forward network, each behind a norm and added to the residual."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)
        self.attention_norm = RMSNorm(config.d_model, config.norm_eps)
        self.ffn_norm = RMSNorm(config.d_model, config.norm_eps)
        self.resid_drop = nn.Dropout(config.resid_drop)
        self.ffn_drop = nn.Dropout(config.ffn_drop)

    def forward(self, residual: Tensor, turns: Tensor) -> Tensor:
        """residual (B, T, D) float32 -> the next residual."""
        residual = residual + self.resid_drop(self.attention(self.attention_norm(residual), turns))
        return residual + self.ffn_drop(self.feed_forward(self.ffn_norm(residual)))

    def prefill(self, residual: Tensor, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``forward``, and the keys and values; see ``Attention.prefill``."""
        update, keys, values = self.attention.prefill(self.attention_norm(residual), turns)
        residual = residual + update
        return residual + self.feed_forward(self.ffn_norm(residual)), keys, values

    def step(self, residual: Tensor, *place: Any) -> Tensor:
        """One item a row: residual (R, D) -> (R, D); ``place`` as of ``Attention.step``."""
        residual = residual + self.attention.step(self.attention_norm(residual), *place)
        return residual + self.feed_forward(self.ffn_norm(residual))

    def advance(self, residual: Tensor, *place: Any) -> Tensor:
        """W items a row: residual (R, W, D) -> (R, W, D); ``place`` as of ``Attention.advance``."""
        residual = residual + self.attention.advance(self.attention_norm(residual), *place)
        return residual + self.feed_forward(self.ffn_norm(residual))
