"""AiM's decoding step in fused Triton kernels: the same interface and the same results as ``AiM``,
close to the memory's speed.

Nothing waits for the host and the launches depend on the number of rows alone, so a step can be
captured in a CUDA graph.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from aim.errors import InvalidInput
from aim.models.aim.layer import Layer
from aim.models.aim.model import AiM
from aim.models.aim.state import HistoryState
from aim.models.aim.step_weights import gained_condition, mix_weights, norm_weights
from aim.models.interface import WIDEST
from aim.models.traffic import Traffic, aim_matrices
from aim.ops.triton.decode.common import overlaps
from aim.ops.triton.decode.few_rows import linear_in, linear_out, out_parts
from aim.ops.triton.decode.norm import add_norm, begin
from aim.ops.triton.decode.rows import FEW, SHORT, SOME
from aim.ops.triton.decode.some_rows import TILE, narrow, out_shares, product, wide_product
from aim.ops.triton.decode.window import mix
from aim.ops.triton.decode.window_ahead import mix_ahead
from aim.ops.triton.decode.window_fold import fold

OFTEN = 16  # items between two folds


class GPUAiM:
    """``AiM.condition``, ``new_state``, ``prefill``, ``step``, ``advance`` and ``settle`` of
    ``model``, whose weights it shares and must not change any more.

    Raises InvalidInput for a model whose sizes the kernels do not take: head and state size must be
    powers of two of 16 or more.
    """

    def __init__(self, model: AiM) -> None:
        c = model.config
        if any(size < 16 or size & (size - 1) for size in (c.headdim, c.d_state)) or c.d_model % 16:
            sizes = f"headdim {c.headdim}, d_state {c.d_state}, d_model {c.d_model}"
            raise InvalidInput(
                "the fused step takes a headdim and d_state of 16, 32, 64, ... and a d_model that "
                f"16 divides, not {sizes}"
            )
        self.model, self.config = model, c
        self.device, self.dtype = model.device, model.dtype
        self.class_table, self.prefill = model.class_table, model.prefill
        self._layers = cast(list[Layer], list(model.layers))
        self._overlap = overlaps(self.device)
        mixing = [mix_weights(layer) for layer in self._layers]
        # exactly
        self._mixing = [
            m._replace(taps=m.taps.to(self.dtype), tap_bias=m.tap_bias.to(self.dtype))
            for m in mixing
        ]
        self._norms = norm_weights(model)
        self._width = c.d_inner + c.conv_dim + c.nheads
        self._offsets_at = (3 + 3 * c.n_layer) * c.d_model

    def condition(self, labels: Tensor) -> Tensor:
        """Everything that depends on the class alone: labels (R,) or class embeddings (R, D) -> (R,
        C) in the model's dtype.

        C columns: class embedding, final shift and gain, then shift, gain and gate of every layer,
        gain being the norm's weight times (1 + scale); in bfloat16 also each layer's ``in_proj`` of
        its shift.
        """
        cond = gained_condition(self.model, labels, self._norms)
        if self.dtype == torch.float32:
            return cond.flatten(1)
        cond = cond.to(self.dtype)
        shifts = cond[:, 3::3].transpose(0, 1)  # (L, R, D)
        offsets = [
            F.linear(shift, layer.mixer.in_proj.weight)
            for shift, layer in zip(shifts, self._layers, strict=True)
        ]
        return torch.cat([cond.flatten(1), *offsets], 1)

    def new_state(self, slots: int, window: int = 1) -> HistoryState:
        """An empty state for ``slots`` rows, each with up to ``window`` items in an ``advance``.
        The history is longer for large pools, whose steps are bound by it.
        """
        c, weight = self.config, self.model.embeddings.word_embeddings.weight
        spare = WIDEST if window > 1 else 0
        lead, held = (c.n_layer, slots), max(self._window(slots), 2 * spare)
        origins = torch.zeros(1, slots, dtype=torch.int32, device=weight.device)
        return HistoryState(
            weight.new_zeros(*lead, c.d_conv + spare, c.conv_dim),
            weight.new_zeros(*lead, c.nheads, held, c.headdim),
            weight.new_zeros(*lead, held, c.d_state),
            weight.new_zeros(*lead, c.nheads, held, dtype=torch.float32),
            weight.new_zeros(*lead, c.nheads, c.headdim, c.d_state),
            origins,
            spare,
        )

    def step(self, codes: Tensor, positions: Tensor, cond: Tensor, state: HistoryState) -> Tensor:
        """As ``AiM.step``: codes (R,), positions (R,) int64, cond and state pooled by slot ->
        logits (R, V) float32.
        """
        positions = positions.contiguous()  # a column of a table, say
        c, lap, count = self.config, self._overlap, len(codes)
        residual, x = self._begin(codes.contiguous(), positions, cond, state)
        layers = self._step_few if self.dtype != torch.float32 and count <= FEW else self._step_many
        layers(residual, x, positions, cond, state)
        if not self._folds(count):
            fold(state.windows(), positions, state.origin, count, state.first, OFTEN, lap)
        table = self.model.embeddings.word_embeddings.weight
        if layers == self._step_few:
            logits = x.new_empty(count, c.vocab_size, dtype=torch.float32)
            linear_in(x, table, logits, overlap=lap)
            return logits
        return wide_product(x, table)

    def advance(
        self, guesses: Tensor, positions: Tensor, cond: Tensor, state: HistoryState
    ) -> Tensor:
        """As ``AiM.advance``: guesses (R, W), W of 2 or more, positions (R,) int64 -> logits (R, W,
        V) float32.
        """
        width = guesses.shape[1]
        positions = positions.contiguous()
        residual, x = self._begin(guesses.flatten(), positions, cond, state, width)
        self._step_many(residual, x, positions, cond, state, width)
        logits = wide_product(x, self.model.embeddings.word_embeddings.weight)
        return logits.view(*guesses.shape, -1)

    def settle(self, counts: Tensor, positions: Tensor, state: HistoryState) -> None:
        """As ``AiM.settle``: keep the first ``counts (R,)`` items that ``advance`` has read."""
        place = positions, state.origin, len(counts), state.first, OFTEN
        fold(state.windows(), *place, self._overlap, counts)

    def _begin(
        self, codes: Tensor, positions: Tensor, cond: Tensor, state: HistoryState, width: int = 1
    ) -> tuple[Tensor, Tensor]:
        """Residual and x (R W, D) of the items that a pass reads, codes (R W,) of W = ``width``."""
        c, words = self.config, self.model.embeddings.word_embeddings.weight
        residual = words.new_empty(len(codes), c.d_model, dtype=torch.float32)
        x = words.new_empty(len(codes), c.d_model)
        begin(
            codes, positions, state.origin, words, self.model.embeddings.position_embeddings.weight,
            cond, residual, x, 4 * c.d_model, 3 * c.d_model, c.position_offset, state.first, OFTEN,
            c.norm_eps, self._overlap, width,
        )  # fmt: skip
        return residual, x

    def traffic(self, rows: int) -> Traffic:
        """Bytes that a step has to move: weights, and on average over a sequence what ``rows`` rows
        remember, read and written.
        """
        c, size = self.config, self.dtype.itemsize
        window = self._window(rows)
        item, base = (c.d_inner + c.d_state) * size + 4 * c.nheads, c.d_inner * c.d_state * size
        moved = 0
        for position in range(c.num_tokens):
            early = position < window
            past = position if early else (position - window) % OFTEN
            moved += (past + 1) * item + (c.d_conv + 1) * c.conv_dim * size
            moved += 0 if early else base
            if position + 1 == window or (not early and past + 1 == OFTEN):
                moved += (past + 1) * item + base * (1 if early else 2)
        return Traffic(aim_matrices(c) * size, rows * c.n_layer * moved // c.num_tokens)

    def _step_few(
        self, residual: Tensor, x: Tensor, positions: Tensor, cond: Tensor, state: HistoryState
    ) -> None:
        """All layers and the final norm, four kernels a layer; residual (R, D) and x (R, D) in
        place.
        """
        c, lap = self.config, self._overlap
        count, width = x.shape
        projected, mixed = x.new_empty(count, self._width), x.new_empty(count, c.d_inner)
        squares = x.new_empty(count, c.nheads, dtype=torch.float32)
        sums = x.new_empty(count, out_parts(width), dtype=torch.float32)
        for i, layer in enumerate(self._layers):
            last = i + 1 == len(self._layers)
            into, out = layer.mixer.in_proj.weight, layer.mixer.out_proj.weight
            offset = cond[:, self._offsets_at + i * self._width :] if i else None
            linear_in(x, into, projected, sums if i else None, offset, c.norm_eps, lap)
            mix(
                projected,
                state.layer(i),
                self._mixing[i],
                positions,
                state.origin,
                mixed,
                squares,
                OFTEN,
                True,
                lap,
                state.first,
            )
            gate, gain = (5 + 3 * i) * width, None if last else (7 + 3 * i) * width
            linear_out(mixed, out, squares, residual, cond, gate, gain, x, sums, c.norm_eps, lap)
        add_norm(
            residual,
            cond,
            2 * width,
            width,
            x,
            c.norm_eps,
            twice=self.model.norm_f.weight,
            overlap=lap,
        )

    def _step_many(
        self,
        residual: Tensor,
        x: Tensor,
        positions: Tensor,
        cond: Tensor,
        state: HistoryState,
        items: int = 1,
    ) -> None:
        """The same for more rows and for float32, and for several ``items`` of each, five kernels a
        layer.
        """
        c, lap = self.config, self._overlap
        count, width = x.shape
        folds = self._folds(count)
        ours = self.dtype != torch.float32 and count <= SOME
        mixed = x.new_empty(count, c.d_inner)
        squares = x.new_empty(count, c.nheads, dtype=torch.float32)
        if ours:
            projected, shares = x.new_empty(1, count, self._width), out_shares(width, c.d_inner)
            update = x.new_empty(shares, count, width, dtype=torch.float32)
            tiles = (narrow(self._width), narrow(width, shares)) if items > 1 else (TILE, TILE)
        for i, layer in enumerate(self._layers):
            into, out = layer.mixer.in_proj.weight, layer.mixer.out_proj.weight
            if ours:
                product(x, into, projected, lap, tiles[0])
            else:
                projected = F.linear(x, into)[None]
            operands = projected[0], state.layer(i), self._mixing[i], positions, state.origin
            if items > 1:
                mix_ahead(*operands, mixed, squares, OFTEN, items, lap)
            else:
                mix(*operands, mixed, squares, OFTEN, folds, lap, state.first)
            if ours:
                product(mixed, out, update, lap, tiles[1])
            else:
                update = F.linear(mixed, out)[None]
            last = i + 1 == len(self._layers)
            gain, shift = (2 * width, width) if last else ((7 + 3 * i) * width, (6 + 3 * i) * width)
            twice = self.model.norm_f.weight if last else None
            add_norm(
                residual,
                cond,
                gain,
                shift,
                x,
                c.norm_eps,
                update,
                squares,
                c.d_inner,
                (5 + 3 * i) * width,
                twice,
                lap,
                items,
            )

    def _window(self, slots: int) -> int:
        """Items of the history, a power of two: kernels read it at once."""
        return min(
            64 if slots <= SHORT else 128, max(16, 1 << (self.config.num_tokens - 1).bit_length())
        )

    def _folds(self, rows: int) -> bool:
        """Whether a full window is folded where it is read; at many rows that takes registers which
        reading needs.
        """
        return self.dtype != torch.float32 and rows <= SHORT
