"""AiM: a class-conditional Mamba-2 decoder over image codes (arXiv 2408.12245), with adaLN,
adaLN-group or adaLN-single.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from aim.config import AiMConfig
from aim.errors import InvalidInput
from aim.models.aim.layer import ClassEmbedding, Embeddings, FinalLayer, Layer, modulation
from aim.models.aim.mamba2 import RMSNorm
from aim.models.aim.state import HistoryState, MambaState, new_mamba_state
from aim.models.pool import window_items
from aim.models.traffic import Traffic, aim_traffic
from aim.ops.linear import linear
from aim.ops.mixer import OURS, Steps, sequences


class AiM(nn.Module):
    """The prior. Items of the sequence are [class, code 0, ..., code T - 2]; item i predicts code
    i.

    Labels are class rows 0 ... num_classes - 1, and num_classes for "no class". Weights are
    float32, or bf16 after ``to_dtype``; logits are float32 always. Tensor names are the official
    ones less the prefix ``mamba.backbone.``.
    """

    def __init__(self, config: AiMConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.cls_embed = ClassEmbedding(config)
        if config.adaln_group:
            self.adaln_group = modulation(config.d_model, 3 * config.num_groups)
        self.final_layer = FinalLayer(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layer))
        self.norm_f = RMSNorm(config.d_model, config.norm_eps)
        self.token_dropout = nn.Dropout(config.token_drop)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for layer in self._layers():  # keeps the residual's variance independent of depth
            nn.init.normal_(layer.mixer.out_proj.weight, std=0.02 / self.config.n_layer**0.5)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.norm_f.weight.device

    @property
    def class_table(self) -> Tensor:
        """The embeddings of the classes, and last of none: (num_classes + 1, D)."""
        return self.cls_embed.embedding_table.weight

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrices; norms, A_log, dt_bias and D are float32 always."""
        return self.embeddings.word_embeddings.weight.dtype

    def to_dtype(self, dtype: torch.dtype) -> AiM:
        """Cast the matrices in place, leaving what must stay float32."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding, nn.Conv1d)):
                module.to(dtype)
        return self

    def use_scan(self, scan: str) -> AiM:
        """Compute sequences, as in training, by ``ops.mixer.sequences(scan)``: "auto", as a new
        model does, "torch" or "mamba-ssm".

        InvalidInput for another name, and for "mamba-ssm" where the model is not on an NVIDIA GPU
        or neither package imports.
        """
        if scan == "mamba-ssm" and self.device.type != "cuda":
            raise InvalidInput(
                "scan is 'mamba-ssm', which needs an NVIDIA GPU, and the model is on "
                f"{self.device}; take auto or torch"
            )
        over = sequences(scan)
        for layer in self._layers():
            layer.mixer.use(over)
        return self

    def condition(self, labels: Tensor) -> Tensor:
        """Everything that depends on the class alone, once a request.

        labels (R,) of class rows, or class embeddings (R, D) -> (R, 3 + 3 n_layer, D) float32: the
        class embedding, the final layer's shift and scale, then shift, scale and gate of every
        layer.
        """
        embedding = labels if labels.is_floating_point() else self.cls_embed.embedding_table(labels)
        rows = embedding.shape[0]
        shape = (rows, -1, self.config.d_model)
        final = self.final_layer.adaLN_modulation(embedding).view(shape).float()
        if self.config.adaln_group:
            groups = self.adaln_group(embedding).view(rows, self.config.num_groups, 3, -1).float()
            tables = torch.cat([layer.scale_shift_table for layer in self._layers()])  # (L, 3, D)
            rounds = -(-self.config.n_layer // self.config.num_groups)
            modulations = (
                groups.repeat(1, rounds, 1, 1)[:, : self.config.n_layer] + tables
            ).flatten(1, 2)
        else:
            modulations = torch.cat(
                [layer.adaLN_modulation(embedding).view(shape) for layer in self._layers()], 1
            ).float()
        return torch.cat([embedding.unsqueeze(1).float(), final, modulations], 1)

    def new_state(self, slots: int, window: int = 1) -> MambaState:
        """A zero state for ``slots`` rows, each with up to ``window`` items in an ``advance``."""
        c = self.config
        conv, ssm = (c.d_conv - 1, c.conv_dim), (c.nheads, c.headdim, c.d_state)
        read = (window, c.conv_dim + c.nheads)
        like = self.embeddings.word_embeddings.weight
        return new_mamba_state(c.n_layer, slots, conv, ssm, read, like)

    def forward(self, codes: Tensor, labels: Tensor) -> Tensor:
        """Teacher forcing: codes (B, T - 1), labels (B,) -> logits (B, T, vocab_size) float32."""
        cond = self.condition(labels)
        residual = self._embed(codes, cond, offset=0)
        for i, layer in enumerate(self._layers()):
            residual = layer(residual, self._of_layer(cond, i))
        return self._logits(residual, cond.unsqueeze(2))

    def prefill(
        self, codes: Tensor, labels: Tensor, state: MambaState | HistoryState, slots: Tensor
    ) -> Tensor:
        """Given codes in one parallel pass: codes (R, K), labels as of ``condition``, state pooled
        by slot, slots (R,) -> logits (R, K + 1, V).

        Reads [class, code 0, ..., code K - 1] and overwrites the slots with the state after it; the
        last logits predict code K, and the next ``step`` of these rows is at position K + 1.
        """
        if codes.shape[1] >= self.config.num_tokens:
            raise InvalidInput(
                f"prefill got {codes.shape[1]} codes; it must be fewer than num_tokens = "
                f"{self.config.num_tokens}"
            )
        cond = self.condition(labels)
        residual = self._embed(codes, cond, self.config.position_offset)
        after = []
        for i, layer in enumerate(self._layers()):
            residual, *last = layer.prefill(residual, self._of_layer(cond, i))
            after.append(last)
        state.take(
            slots, residual.shape[1], *(torch.stack(part) for part in zip(*after, strict=True))
        )
        return self._logits(residual, cond.unsqueeze(2))

    def step(
        self,
        codes: Tensor,
        positions: Tensor,
        cond: Tensor,
        state: MambaState,
        steps: Steps = OURS,
    ) -> Tensor:
        """One item a row: codes (R,) drawn last, positions (R,), cond and state pooled by slot ->
        logits (R, V).

        Item ``position`` is read and code ``position`` predicted; the state changes in place. Row i
        is slot i. At position 0 the class is read, not the code, and the old state counts as zero.
        A row with a negative position is idle: its logits mean nothing and its slot is not written.
        ``steps`` are the operations on the state.
        """
        count = codes.shape[0]
        rows, cond = state.rows(count), cond[:count]
        idle = positions < 0
        rows.clear(positions == 0)
        residual = self._items(codes, positions, cond[:, 0])
        for i, layer in enumerate(self._layers()):
            residual = layer.step(
                residual, self._of_layer(cond, i), rows.conv[i], rows.ssm[i], idle, steps
            )
        return self._logits(residual, cond)

    def traffic(self, rows: int) -> Traffic:
        """Bytes that a step of ``rows`` rows has to move."""
        return aim_traffic(self.config, rows, self.dtype.itemsize, self.dtype.itemsize)

    def advance(
        self, guesses: Tensor, positions: Tensor, cond: Tensor, state: MambaState
    ) -> Tensor:
        """W items a row, (R, W), at positions (R,) and on -> logits (R, W, V); see
        ``interface.WindowDecoder``.
        """
        count, width = guesses.shape
        rows, cond = state.rows(count), cond[:count]
        at, idle = window_items(positions, width, self.config.num_tokens)
        rows.clear(positions == 0)
        residual = self._items(guesses, at, cond[:, :1])
        for i, layer in enumerate(self._layers()):
            read = rows.read[i, :count, :width]
            residual = layer.advance(
                residual, self._of_layer(cond, i), rows.conv[i], rows.ssm[i], idle, read
            )
        return self._logits(residual, cond.unsqueeze(2))

    def settle(self, counts: Tensor, positions: Tensor, state: MambaState) -> None:
        """Keep the first ``counts (R,)`` items of each row that ``advance`` has read."""
        rows = state.rows(len(counts))
        for i, layer in enumerate(self._layers()):
            layer.mixer.settle(counts, rows.conv[i], rows.ssm[i], rows.read[i, : len(counts)])

    def _layers(self) -> list[Layer]:
        return cast(list[Layer], list(self.layers))

    @staticmethod
    def _of_layer(cond: Tensor, i: int) -> Tensor:
        return cond[:, 3 + 3 * i : 6 + 3 * i]

    def _items(self, codes: Tensor, positions: Tensor, start: Tensor) -> Tensor:
        """What is read at positions (R, ...): codes (R, ...), or the class at position 0, start
        (R, ..., D) -> (R, ..., D) float32.
        """
        word = self.embeddings.word_embeddings(codes.clamp(0, self.config.vocab_size - 1)).float()
        at = (positions - 1 + self.config.position_offset).clamp(0, self.config.num_tokens)
        item = word + self.embeddings.position_embeddings(at).float()
        return torch.where((positions == 0).unsqueeze(-1), start, item)

    def _embed(self, codes: Tensor, cond: Tensor, offset: int) -> Tensor:
        """codes (B, K) -> items (B, K + 1, D) float32, the class first."""
        positions = torch.arange(codes.shape[1], device=codes.device) + offset
        words = self.token_dropout(
            self.embeddings.word_embeddings(codes) + self.embeddings.position_embeddings(positions)
        )
        return torch.cat([cond[:, :1], words.float()], 1)

    def _logits(self, residual: Tensor, cond: Tensor) -> Tensor:
        """residual (..., D), cond (R, 3 + 3L, [1,] D) -> (..., V) float32."""
        x = self.final_layer.norm_final(self.norm_f(residual))
        x = torch.addcmul(cond[:, 1], x, 1 + cond[:, 2])
        weight = self.embeddings.word_embeddings.weight
        return linear(x.to(weight.dtype), weight).float()
