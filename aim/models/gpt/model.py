"""GPT: LlamaGen's class-conditional Transformer over image codes (arXiv 2406.06525;
github.com/FoundationVision/LlamaGen).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from aim.config import GPTConfig
from aim.errors import InvalidInput
from aim.models.aim.layer import ClassEmbedding
from aim.models.aim.mamba2 import RMSNorm
from aim.models.gpt.cache import KVState
from aim.models.gpt.layer import Layer
from aim.models.pool import window_items
from aim.models.traffic import Traffic, gpt_traffic
from aim.ops.attention import capacity, rotary_table
from aim.ops.linear import Linear


class GPT(nn.Module):
    """The Transformer prior, with the interface of ``aim.models.aim.model.AiM``.

    Items of the sequence are [class, code 0, ..., code T - 2]; item i predicts code i. Labels are
    class rows 0 ... num_classes - 1, and num_classes for "no class". Weights are float32, or bf16
    after ``to_dtype``; residual and logits are float32 always. Tensor names are the official ones.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.cls_embedding = ClassEmbedding(config)
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layer))
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.output = Linear(config.d_model, config.vocab_size, bias=False)
        self.token_dropout = nn.Dropout(config.token_drop)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.norm.weight.device

    @property
    def class_table(self) -> Tensor:
        """The embeddings of the classes, and last of none: (num_classes + 1, D)."""
        return self.cls_embedding.embedding_table.weight

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrices; norms are float32 always."""
        return self.tok_embeddings.weight.dtype

    def to_dtype(self, dtype: torch.dtype) -> GPT:
        """Cast the matrices in place, leaving what must stay float32."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                module.to(dtype)
        return self

    def condition(self, labels: Tensor) -> Tensor:
        """Everything that depends on the class alone: labels (R,), or class embeddings (R, D) ->
        the class token (R, D) float32.
        """
        return (
            labels if labels.is_floating_point() else self.cls_embedding.embedding_table(labels)
        ).float()

    def new_state(self, slots: int, window: int = 1) -> KVState:
        """An empty cache for ``slots`` rows, in the model's dtype; it has room for any
        ``window``.
        """
        c = self.config
        shape = (c.n_layer, slots, c.n_head, capacity(c.num_tokens), c.head_dim)
        like = self.tok_embeddings.weight
        return KVState(
            *(torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(2))
        )

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Teacher forcing: codes (B, T - 1), labels (B,) -> logits (B, T, vocab_size) float32."""
        residual = self._embed(codes, self.condition(labels))
        turns = self._turns(residual)
        for layer in self._layers():
            residual = layer(residual, turns)
        return self._logits(residual)

    def prefill(self, codes: Tensor, labels: Tensor, state: KVState, slots: Tensor) -> Tensor:
        """Given codes in one parallel pass: codes (R, K), labels as of ``condition``, state pooled
        by slot, slots (R,) -> logits (R, K + 1, V).

        As ``AiM.prefill``.
        """
        if codes.shape[1] >= self.config.num_tokens:
            raise InvalidInput(
                f"prefill got {codes.shape[1]} codes; it must be fewer than num_tokens = "
                f"{self.config.num_tokens}"
            )
        residual = self._embed(codes, self.condition(labels))
        turns = self._turns(residual)
        after = []
        for layer in self._layers():
            residual, *last = layer.prefill(residual, turns)
            after.append(last)
        state.take(slots, *(torch.stack(part) for part in zip(*after, strict=True)))
        return self._logits(residual)

    def step(self, codes: Tensor, positions: Tensor, cond: Tensor, state: KVState) -> Tensor:
        """One item a row: codes (R,) drawn last, positions (R,), cond and state pooled by slot ->
        logits (R, V).

        As ``AiM.step``: row i is slot i; at position 0 the class is read, not the code, and the old
        state counts as zero; a row with a negative position is idle and writes nothing.
        """
        count = codes.shape[0]
        rows, cond = state.rows(count), cond[:count]
        fresh, idle, at = positions == 0, positions < 0, positions.clamp(min=0)
        rows.clear(fresh)
        word = self.tok_embeddings(codes.clamp(0, self.config.vocab_size - 1)).float()
        residual = torch.where(fresh.unsqueeze(1), cond, word)
        # a GPU is not waited for
        filled = self.config.num_tokens if at.is_cuda else int(at.max()) + 1
        turns = self._table(residual)[at]
        for i, layer in enumerate(self._layers()):
            residual = layer.step(residual, turns, rows.keys[i], rows.values[i], at, idle, filled)
        return self._logits(residual)

    def traffic(self, rows: int) -> Traffic:
        """Bytes that a step of ``rows`` rows has to move."""
        return gpt_traffic(self.config, rows, self.dtype.itemsize, self.dtype.itemsize)

    def advance(self, guesses: Tensor, positions: Tensor, cond: Tensor, state: KVState) -> Tensor:
        """W items a row, (R, W), at positions (R,) and on -> logits (R, W, V); see
        ``interface.WindowDecoder``.
        """
        count, width = guesses.shape
        rows, total = state.rows(count), self.config.num_tokens
        at, idle = window_items(positions, width, total)
        rows.clear(positions == 0)
        words = self.tok_embeddings(guesses.clamp(0, self.config.vocab_size - 1)).float()
        residual = torch.where((at == 0).unsqueeze(-1), cond[:count].unsqueeze(1), words)
        at = at.clamp(0, total - 1)
        filled = total if at.is_cuda else int(at.max()) + 1
        turns = self._table(residual)[at]
        for i, layer in enumerate(self._layers()):
            residual = layer.advance(
                residual, turns, rows.keys[i], rows.values[i], at, idle, filled
            )
        return self._logits(residual)

    def settle(self, counts: Tensor, positions: Tensor, state: KVState) -> None:
        """Keep the first ``counts (R,)`` items of each row that ``advance`` has read at positions
        (R,): the others are zero again, as they may be NaN.
        """
        state.rows(len(counts)).forget(positions, counts)

    def _layers(self) -> list[Layer]:
        return cast(list[Layer], list(self.layers))

    def _embed(self, codes: Tensor, cond: Tensor) -> Tensor:
        """codes (B, K), cond (B, D) -> items (B, K + 1, D) float32, the class first."""
        words = torch.cat([cond.unsqueeze(1), self.tok_embeddings(codes).float()], 1)
        return self.token_dropout(words)

    def _table(self, like: Tensor) -> Tensor:
        c = self.config
        return rotary_table(c.grid, c.head_dim, c.rope_base, like.device)

    def _turns(self, items: Tensor) -> Tensor:
        return self._table(items)[: items.shape[1]]

    def _logits(self, residual: Tensor) -> Tensor:
        """residual (..., D) -> (..., V) float32."""
        return self.output(self.norm(residual).to(self.output.weight.dtype)).float()
