"""The Transformer's decoding step in fused Triton kernels: the same interface and the same results
as ``GPT``, close to the memory's speed.

Nothing waits for the host and the launches depend on the number of rows alone, so a step can be
captured in a CUDA graph.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from aim.errors import InvalidInput
from aim.models.gpt.cache import CacheState
from aim.models.gpt.layer import Layer
from aim.models.gpt.model import GPT
from aim.ops.attention import rotary_table
from aim.ops.triton.decode.attention import add_norm, attend, embed, gate
from aim.ops.triton.decode.attention_ahead import attend_ahead
from aim.ops.triton.decode.common import overlaps
from aim.ops.triton.decode.few_rows import linear_in, linear_out, out_parts
from aim.ops.triton.decode.rows import FEW, SOME
from aim.ops.triton.decode.some_rows import (
    LEAST,
    TILE,
    narrow,
    product_in,
    product_out,
    tiles,
    wide_product,
)


class _Weights(NamedTuple):
    """Of one layer, as a step wants them."""

    wqkv: Tensor  # (3 D, D)
    wo: Tensor  # (D, D)
    w13: Tensor  # (2 F, D): a feature of w1, the same of w3, the next of w1, ...
    w2: Tensor  # (D, F)
    attention_norm: Tensor  # (D,) float32
    ffn_norm: Tensor  # (D,) float32


class GPUGPT:
    """``GPT.condition``, ``new_state``, ``prefill``, ``step``, ``advance`` and ``settle`` of
    ``model``, whose weights must not change any more.

    It shares the weights but for w1 and w3, of which it holds a copy. Raises InvalidInput for a
    model whose sizes the kernels do not take: a head's must be a power of two of 16 or more, and 16
    must divide the others.
    """

    def __init__(self, model: GPT) -> None:
        c = model.config
        if c.head_dim < 16 or c.head_dim & (c.head_dim - 1) or c.d_model % 16 or c.d_ffn % 16:
            sizes = f"head_dim {c.head_dim}, d_model {c.d_model}, d_ffn {c.d_ffn}"
            raise InvalidInput(
                "the fused step takes a head_dim of 16, 32, 64, ... and a d_model and d_ffn that "
                f"16 divides, not {sizes}"
            )
        self.model, self.config = model, c
        self.device, self.dtype = model.device, model.dtype
        self.class_table, self.condition = model.class_table, model.condition
        self.prefill, self.traffic = model.prefill, model.traffic
        self._overlap = overlaps(self.device)
        self._turns = rotary_table(c.grid, c.head_dim, c.rope_base, self.device)
        self._layers = [_prepare(layer) for layer in model._layers()]
        # of the norm behind each layer: the next layer's, at last the final one
        self._after = [
            *(layer.attention_norm for layer in self._layers[1:]),
            model.norm.weight.detach(),
        ]

    def new_state(self, slots: int, window: int = 1) -> CacheState:
        """An empty cache for ``slots`` rows, in the model's dtype; it has room for any
        ``window``.
        """
        cache = self.model.new_state(slots)
        return CacheState(
            cache.keys,
            cache.values,
            torch.zeros(tiles(self.config.d_model, LEAST), dtype=torch.int32, device=self.device),
        )

    def step(self, codes: Tensor, positions: Tensor, cond: Tensor, state: CacheState) -> Tensor:
        """As ``GPT.step``: codes (R,), positions (R,) int64, cond and state pooled by slot ->
        logits (R, V) float32.
        """
        return self._lines(codes.contiguous(), positions, cond, state)

    def advance(
        self, guesses: Tensor, positions: Tensor, cond: Tensor, state: CacheState
    ) -> Tensor:
        """As ``GPT.advance``: guesses (R, W), positions (R,) int64 -> logits (R, W, V) float32."""
        width = guesses.shape[1]
        logits = self._lines(guesses.flatten(), positions, cond, state, width)
        return logits.view(*guesses.shape, -1)

    def settle(self, counts: Tensor, positions: Tensor, state: CacheState) -> None:
        """As ``GPT.settle``, which is nothing here: what is beyond a position is never read."""

    def _lines(
        self, codes: Tensor, positions: Tensor, cond: Tensor, state: CacheState, width: int = 1
    ) -> Tensor:
        """Logits (R width, V) of the items that a pass reads, codes (R width,)."""
        positions = positions.contiguous()  # a column of a table, say
        c, words = self.config, self.model.tok_embeddings.weight
        residual = words.new_empty(len(codes), c.d_model, dtype=torch.float32)
        x = words.new_empty(len(codes), c.d_model)
        embed(
            codes,
            positions,
            words,
            cond,
            self._layers[0].attention_norm,
            residual,
            x,
            c.norm_eps,
            self._overlap,
            width,
        )
        if self.dtype == torch.float32 or len(codes) > SOME:
            return self._step_many(residual, x, positions, state, width)
        if width == 1 and len(codes) <= FEW:
            return self._step_few(residual, x, positions, state)
        return self._step_some(residual, x, positions, state, width)

    def _step_few(
        self, residual: Tensor, x: Tensor, positions: Tensor, state: CacheState
    ) -> Tensor:
        """All layers and the head, five kernels a layer: residual (R, D) and x (R, D), both
        overwritten -> logits.
        """
        c, lap, count = self.config, self._overlap, len(x)
        projected, mixed, hidden = (
            x.new_empty(count, 3 * c.d_model),
            torch.empty_like(x),
            x.new_empty(count, c.d_ffn),
        )
        sums = x.new_empty(count, out_parts(c.d_model), dtype=torch.float32)
        eps = c.norm_eps
        for i, w in enumerate(self._layers):
            linear_in(x, w.wqkv, projected, sums if i else None, None, eps, lap)
            attend(projected, state.keys[i], state.values[i], self._turns, positions, mixed, lap)
            linear_out(
                mixed,
                w.wo,
                None,
                residual,
                w.ffn_norm.expand(count, -1),
                None,
                0,
                x,
                sums,
                eps,
                lap,
            )
            linear_in(x, w.w13, hidden, sums, None, eps, lap, gated=True)
            linear_out(
                hidden,
                w.w2,
                None,
                residual,
                self._after[i].expand(count, -1),
                None,
                0,
                x,
                sums,
                eps,
                lap,
            )
        logits = x.new_empty(count, c.vocab_size, dtype=torch.float32)
        linear_in(x, self.model.output.weight, logits, sums, None, eps, lap)
        return logits

    def _step_some(
        self, residual: Tensor, x: Tensor, positions: Tensor, state: CacheState, width: int
    ) -> Tensor:
        """The same for up to a few dozen rows, or items of rows."""
        c, lap, count = self.config, self._overlap, len(x)
        projected, mixed, hidden = (
            x.new_empty(count, 3 * c.d_model),
            torch.empty_like(x),
            x.new_empty(count, c.d_ffn),
        )
        out, wide, pairs, codes = (
            narrow(features) if width > 1 else TILE
            for features in (c.d_model, 3 * c.d_model, 2 * c.d_ffn, c.vocab_size)
        )
        sums = x.new_empty(count, tiles(c.d_model, out), dtype=torch.float32)
        eps, arrived = c.norm_eps, state.arrived
        for i, w in enumerate(self._layers):
            product_in(x, w.wqkv, projected, sums if i else None, False, eps, lap, wide)
            self._attend(projected, positions, state, i, mixed, width)
            product_out(mixed, w.wo, residual, w.ffn_norm, x, sums, arrived, lap, out)
            product_in(x, w.w13, hidden, sums, True, eps, lap, pairs)
            product_out(hidden, w.w2, residual, self._after[i], x, sums, arrived, lap, out)
        logits = x.new_empty(count, c.vocab_size, dtype=torch.float32)
        product_in(x, self.model.output.weight, logits, sums, False, eps, lap, codes)
        return logits

    def _step_many(
        self, residual: Tensor, x: Tensor, positions: Tensor, state: CacheState, width: int
    ) -> Tensor:
        """The same for more rows and for float32, by a library's products."""
        c, lap = self.config, self._overlap
        mixed, hidden = torch.empty_like(x), x.new_empty(len(x), c.d_ffn)
        for i, w in enumerate(self._layers):
            self._attend(F.linear(x, w.wqkv), positions, state, i, mixed, width)
            add_norm(residual, F.linear(mixed, w.wo), w.ffn_norm, x, c.norm_eps, lap)
            gate(F.linear(x, w.w13), hidden, lap)
            add_norm(residual, F.linear(hidden, w.w2), self._after[i], x, c.norm_eps, lap)
        return wide_product(x, self.model.output.weight)

    def _attend(
        self,
        projected: Tensor,
        positions: Tensor,
        state: CacheState,
        i: int,
        mixed: Tensor,
        width: int,
    ) -> None:
        """Of layer i: projected (R width, 3 D) -> mixed (R width, D)."""
        cache = state.keys[i], state.values[i], self._turns, positions
        if width == 1:
            attend(projected, *cache, mixed, self._overlap)
        else:
            attend_ahead(projected, *cache, mixed, width, self._overlap)


def _prepare(layer: Layer) -> _Weights:
    attention, forward = layer.attention, layer.feed_forward
    pairs = torch.stack([forward.w1.weight, forward.w3.weight], 1).flatten(0, 1)
    weights = (
        attention.wqkv.weight,
        attention.wo.weight,
        pairs,
        forward.w2.weight,
        layer.attention_norm.weight,
        layer.ffn_norm.weight,
    )
    return _Weights(*(weight.detach() for weight in weights))
