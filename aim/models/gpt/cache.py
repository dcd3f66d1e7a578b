"""What the Transformer remembers: keys and values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aim.models.interface import WIDEST
from aim.models.pool import Pool


@dataclass(frozen=True)
class KVState(Pool):
    """Keys and values of every layer, for a pool of slots. A new state is zero."""

    keys: Tensor  # (n_layer, slots, n_head, capacity, head_dim), rotated
    values: Tensor  # (n_layer, slots, n_head, capacity, head_dim)

    def take(self, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """What slots (R,) remember after T items: keys and values (L, R, H, T, head_dim)."""
        for part, new in ((self.keys, keys), (self.values, values)):
            part[:, slots] = 0
            part[:, slots, :, : new.shape[3]] = new.to(part.dtype)

    def forget(self, positions: Tensor, counts: Tensor) -> None:
        """Zero the items from ``positions + counts`` (slots,) on that a pass at ``positions`` may
        have written, but for idle slots.
        """
        room = self.keys.shape[3]
        if positions.device.type == "cpu":  # a few slices are faster than indices
            for row, start in enumerate((positions + counts).tolist()):
                if start > 0:
                    for part in self:
                        part[:, row, :, start : start + WIDEST - 1] = 0.0
            return
        slot = torch.arange(self.slots, device=positions.device).unsqueeze(1)
        beyond = positions + counts + torch.arange(WIDEST - 1, device=slot.device).unsqueeze(1)
        kept = ((beyond >= room) | (positions < 0)).T  # (slots, WIDEST - 1)
        at = beyond.T % room
        for part in self:
            old = part[:, slot, :, at]  # (slots, WIDEST - 1, layers, H, head_dim)
            part[:, slot, :, at] = old.masked_fill(~kept[..., None, None, None], 0.0)


@dataclass(frozen=True)
class CacheState(KVState):
    """The same, and what the kernels of a step count with, which is zero between steps and no
    slot's.
    """

    arrived: Tensor  # (tiles,) int32

    def _pooled(self) -> dict[str, Tensor]:
        return {"keys": self.keys, "values": self.values}
