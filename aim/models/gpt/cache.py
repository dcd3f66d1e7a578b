"""What the Transformer remembers: keys and values."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

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


@dataclass(frozen=True)
class CacheState(KVState):
    """The same, and what the kernels of a step count with, which is zero between steps and no
    slot's.
    """

    arrived: Tensor  # (tiles,) int32

    def _pooled(self) -> dict[str, Tensor]:
        return {"keys": self.keys, "values": self.values}
