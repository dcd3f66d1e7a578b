"""The tensors of the engine: one model step and one draw for every row, on the device, without waiting for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aim.engine.scheduler import Running
from aim.sampling import RowParams, sample

BROKEN = -1  # drawn where the logits are not finite, so that nobody has to ask the device at every step


def row_multiple(device: torch.device, dtype: torch.dtype, slots: int) -> int:
    """What the number of rows is rounded up to, so that a row's float32 logits do not depend on the others.

    A float32 product on a CPU gives the same bits in batches of 4, 8, 12, ... rows, in bf16 a batched one does from 2 rows
    on. Elsewhere the kernel is picked by the number of rows: float32 always runs the whole pool.
    """
    if dtype != torch.float32:
        return 2
    return 4 if device.type == "cpu" else slots + slots % 2


@dataclass
class Batch:
    """What a step reads besides the pools; made anew when somebody joins or leaves. R rows, K requests."""

    positions: Tensor  # (R,) int64, -1 where idle
    advance: Tensor  # (R,) int64, 1 where a request lives
    owner: Tensor  # (R,) index of the row's request; any where idle
    pair: Tensor  # (2, K) the conditional and the unconditional row of every request, the same row without guidance
    at: Tensor  # (K,) position of every request
    params: RowParams


class Runner:
    """Pools for ``slots`` rows: recurrent state, condition, last code, drawn codes; and the batch on them.

    ``model`` is anything with the interface of ``aim.models.AiM``. Not thread-safe: the engine calls it from one place.
    """

    def __init__(self, model: Any, slots: int) -> None:
        self.model = model
        self.device = model.device
        self.multiple = row_multiple(model.device, model.dtype, slots)
        slots = -(-slots // self.multiple) * self.multiple
        with torch.inference_mode():
            self._state = model.new_state(slots)
            shape = self._condition(0).shape[1:]
            self._cond = torch.zeros(slots, *shape, device=self.device)
            self._last = torch.zeros(slots, dtype=torch.int64, device=self.device)
            self._drawn = torch.zeros(slots, model.config.num_tokens, dtype=torch.int64, device=self.device)
        self._batch: Batch | None = None

    @torch.inference_mode()
    def admit(self, slots: Sequence[int], label: int) -> None:
        """Fill the condition of a new request's slots; its state is cleared by its first step."""
        self._cond[slots] = self._condition(label)[: len(slots)]
        self._last[slots] = 0

    @torch.inference_mode()
    def move(self, moves: Sequence[tuple[int, int]]) -> None:
        """Copy slots to others: pairs of (from, to), no slot twice."""
        src, dst = torch.tensor(moves, device=self.device).T
        self._state.copy(src, dst)
        for pool in (self._cond, self._last, self._drawn):
            pool[dst] = pool[src]

    @torch.inference_mode()
    def arrange(self, running: Iterable[Running], rows: int) -> None:
        """Take up a changed set of requests, in ``rows`` rows."""
        running = list(running)
        positions, owner = [-1] * rows, [0] * rows
        for i, entry in enumerate(running):
            for slot in entry.slots:
                positions[slot], owner[slot] = entry.step, i
        pair = [[entry.slots[0] for entry in running], [entry.slots[-1] for entry in running]]
        steps = [entry.step for entry in running]
        params = RowParams.of([e.request.params for e in running], [e.request.seed for e in running], self.device)
        at, where, owners, pairs = (torch.tensor(v, device=self.device) for v in (steps, positions, owner, pair))
        self._batch = Batch(where, (where >= 0).long(), owners, pairs, at, params)

    @torch.inference_mode()
    def step(self) -> None:
        """Draw one more code for every request."""
        b = self._batch
        assert b is not None
        rows = b.positions.shape[0]
        logits = self.model.step(self._last[:rows], b.positions, self._cond, self._state)  # (R, V)
        cond, uncond = logits[b.pair]  # (K, V) each
        codes = sample(cond, uncond, b.params, b.at)  # (K,)
        whole = logits.sum(-1)[b.pair].sum(0).isfinite()  # an infinity or NaN anywhere survives both sums
        codes = torch.where(whole, codes, BROKEN)
        self._drawn[b.pair[0], b.at] = codes
        torch.index_select(codes, 0, b.owner, out=self._last[:rows])
        b.positions += b.advance
        b.at += 1

    def codes(self, slot: int, count: int) -> np.ndarray:
        """A copy of the first ``count`` codes (count,) drawn for the request whose conditional row is ``slot``; waits for the device.

        Broken ones are ``BROKEN``.
        """
        return self._drawn[slot, :count].to("cpu", copy=True).numpy()

    def _condition(self, label: int) -> Tensor:
        """With and without the class (2, ...). Always 4 rows at once: the same bits at every admission."""
        null = self.model.config.num_classes
        return self.model.condition(torch.tensor([label, null, null, null], device=self.device))[:2]
