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


@dataclass(frozen=True)
class CacheState(KVState):
    """The same, and what the kernels of a step count with, which is zero between steps and no
    slot's.
    """

    arrived: Tensor  # (tiles,) int32

    def _pooled(self) -> dict[str, Tensor]:
        return {"keys": self.keys, "values": self.values}
