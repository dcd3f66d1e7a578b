"""GPT's decoding step prepared for a CPU: the same interface and the same results as ``GPT``, in
fewer and faster calls.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from aim.errors import InvalidInput
from aim.models.gpt.cache import KVState
from aim.models.gpt.layer import Layer
from aim.models.gpt.model import GPT
from aim.models.pool import window_items
from aim.models.traffic import FLOAT32, Traffic, gpt_traffic
from aim.ops.activation import silu
from aim.ops.attention import attend_reached, capacity, hide, reach, rotary_table
from aim.ops.linear import Product, fixed_product


class _Layer(NamedTuple):
    """A layer's weights as a step wants them."""

    attention_gain: Tensor  # (D,), with what ``_normed`` leaves out
    into: Product  # to queries, keys, values
    out: Product
    ffn_gain: Tensor
    up: Product  # to the gate and what it gates
    down: Product


class _Place(NamedTuple):
    """Where the new items of a step go and what they attend to, made once for all layers; N = R H.
    Mostly views.
    """

    new: Tensor  # (R, 3, D) float32: of one layer after another, queries, keys and values ...
    q: Tensor  # (N, 1, head_dim)
    k: Tensor  # (N, head_dim)
    v: Tensor  # (N, head_dim)
    pairs: Tensor  # (2, R, H, head_dim / 2) complex, queries and keys
    turns: Tensor  # (R, 1, head_dim / 2) complex
    into: Tensor  # (N,) of the N C items of a layer; fewer where rows are idle
    busy: Tensor | None  # (N,) bool; None where no row is idle
    hidden: Tensor  # (N, 1, n)


class CPUGPT:
    """``GPT.condition``, ``new_state``, ``prefill`` and ``step`` of ``model`` on a CPU; its weights
    must not change any more.

    It holds a second copy of the matrices, packed as ``ops.linear`` wants them.
    """

    def __init__(self, model: GPT) -> None:
        if model.device.type != "cpu":
            raise InvalidInput(f"the model is on {model.device}; CPUGPT is for a CPU")
        c = model.config
        self.model, self.config = model, c
        self.device, self.dtype = model.device, model.dtype
        self.class_table = model.class_table
        self.condition, self.prefill = model.condition, model.prefill
        self._room = capacity(c.num_tokens)
        self._tail = (c.d_model * c.norm_eps) ** 0.5
        with torch.no_grad():
            self._layers = [self._prepare(layer) for layer in cast(list[Layer], list(model.layers))]
            self._gain, self._head = (
                self._scaled(model.norm.weight),
                fixed_product(model.output.weight),
            )
            self._turns = torch.view_as_complex(
                rotary_table(c.grid, c.head_dim, c.rope_base, self.device)
            ).unsqueeze(1)

    def new_state(self, slots: int, window: int = 1) -> KVState:
        """An empty cache for ``slots`` rows in float32, which a step then need not convert."""
        return KVState(*(part.float() for part in self.model.new_state(slots)))

    def traffic(self, rows: int) -> Traffic:
        """Bytes that a step of ``rows`` rows has to move."""
        return gpt_traffic(self.config, rows, self.dtype.itemsize, FLOAT32)

    def step(self, codes: Tensor, positions: Tensor, cond: Tensor, state: KVState) -> Tensor:
        """As ``GPT.step``: codes (R,), positions (R,), cond and state pooled by slot -> logits (R,
        V) float32.
        """
        count = codes.shape[0]
        rows = state.rows(count)
        # most steps have neither a new nor an idle row
        lowest, highest = positions.min().item(), positions.max().item()
        items = self.model.tok_embeddings(codes.clamp(0, self.config.vocab_size - 1)).float()
        if lowest <= 0:
            fresh = positions == 0
            rows.clear(fresh)
            items = torch.where(fresh.unsqueeze(1), cond[:count], items)
        place = self._place(positions, int(lowest), int(highest))
        # one column more, so that a row's length is the root of D (mean(x^2) + eps)
        padded = F.pad(items, (0, 1), value=self._tail)
        residual = padded[:, :-1]
        for layer, *views in zip(self._layers, *self._items(rows, place), strict=True):
            x = self._normed(padded, residual, layer.attention_gain)
            residual.add_(layer.out(self._attend(layer.into(x), place, *views)))
            gate, up = layer.up(self._normed(padded, residual, layer.ffn_gain)).float().chunk(2, -1)
            residual.add_(layer.down(silu(gate).mul_(up).to(self.dtype)))
        return self._head(self._normed(padded, residual, self._gain)).float()

    def advance(self, guesses: Tensor, positions: Tensor, cond: Tensor, state: KVState) -> Tensor:
        """As ``GPT.advance``: guesses (R, W), positions (R,) -> logits (R, W, V) float32."""
        (count, width), total = guesses.shape, self.config.num_tokens
        rows = state.rows(count)
        at, idle = window_items(positions, width, total)
        items = self.model.tok_embeddings(guesses.clamp(0, self.config.vocab_size - 1)).float()
        if int(positions.min()) <= 0:
            rows.clear(positions == 0)
            items = torch.where((at == 0).unsqueeze(2), cond[:count].unsqueeze(1), items)
        at = at.masked_fill_(idle, -1)
        highest = int(at.max())
        places = [self._place(one, int(one.min()), highest) for one in at.unbind(1)]
        padded = F.pad(items, (0, 1), value=self._tail)
        residual = padded[..., :-1]

        def product(by: Product, x: Tensor) -> Tensor:
            return by(x.flatten(0, 1)).view(count, width, -1)

        for layer, *views in zip(self._layers, *self._items(rows, places[0]), strict=True):
            x = product(layer.into, self._normed(padded, residual, layer.attention_gain))
            y = [self._attend(x[:, i], place, *views) for i, place in enumerate(places)]
            residual.add_(product(layer.out, torch.stack(y, 1)))
            x = product(layer.up, self._normed(padded, residual, layer.ffn_gain)).float()
            gate, up = x.chunk(2, -1)
            residual.add_(product(layer.down, silu(gate).mul_(up).to(self.dtype)))
        return product(self._head, self._normed(padded, residual, self._gain)).float()

    def settle(self, counts: Tensor, positions: Tensor, state: KVState) -> None:
        """As ``GPT.settle``: keep the first ``counts (R,)`` items that ``advance`` has read."""
        state.rows(len(counts)).forget(positions, counts)

    def _place(self, positions: Tensor, lowest: int, highest: int) -> _Place:
        c, count = self.config, len(positions)
        at = positions.clamp(min=0)
        into = (
            torch.arange(count * c.n_head).view(count, -1) * self._room + at.unsqueeze(1)
        ).flatten()
        busy = (positions >= 0).repeat_interleave(c.n_head) if lowest < 0 else None
        new = torch.empty(3, count, c.d_model)
        pairs = torch.view_as_complex(new[:2].view(2, count, c.n_head, -1, 2))
        q, k, v = new.view(3, -1, c.head_dim).unbind()
        hidden = hide(at + 1, c.n_head, reach(max(highest, 0) + 1, self._room, c.head_dim))
        into = into if busy is None else into[busy]
        return _Place(
            new.transpose(0, 1), q.unsqueeze(1), k, v, pairs, self._turns[at], into, busy, hidden
        )

    def _items(self, rows: KVState, place: _Place) -> list[tuple[Tensor, ...]]:
        """Views of each layer's keys and values: of all (N C, head_dim), and of what is read, keys
        and values (N, n, head_dim).
        """
        size, reached = self.config.head_dim, place.hidden.shape[-1]
        parts = []
        for part in rows:
            parts += [
                part.view(len(part), -1, size),
                part.view(len(part), -1, self._room, size)[:, :, :reached],
            ]
        return [part.unbind() for part in parts]

    def _attend(
        self,
        projected: Tensor,
        place: _Place,
        all_keys: Tensor,
        keys: Tensor,
        all_values: Tensor,
        values: Tensor,
    ) -> Tensor:
        """projected (R, 3 D), and of ``_items`` -> (R, D) in the model's dtype."""
        place.new.copy_(projected.unflatten(-1, (3, -1)))
        place.pairs.mul_(place.turns)
        for part, new in ((all_keys, place.k), (all_values, place.v)):
            part.index_copy_(0, place.into, new if place.busy is None else new[place.busy])
        return (
            attend_reached(place.q, keys, values, place.hidden)
            .view(len(projected), -1)
            .to(self.dtype)
        )

    def _normed(self, padded: Tensor, residual: Tensor, gain: Tensor) -> Tensor:
        """The norm of residual (R, D), a view of padded (R, D + 1), in the model's dtype."""
        return (
            torch.mul(residual, gain)
            .div_(torch.linalg.vector_norm(padded, dim=-1, keepdim=True))
            .to(self.dtype)
        )

    def _scaled(self, weight: Tensor) -> Tensor:
        return weight * self.config.d_model**0.5

    def _prepare(self, layer: Layer) -> _Layer:
        attention, ffn = layer.attention, layer.feed_forward
        return _Layer(
            self._scaled(layer.attention_norm.weight),
            fixed_product(attention.wqkv.weight),
            fixed_product(attention.wo.weight),
            self._scaled(layer.ffn_norm.weight),
            fixed_product(torch.cat([ffn.w1.weight, ffn.w3.weight])),
            fixed_product(ffn.w2.weight),
        )
