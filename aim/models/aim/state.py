"""What AiM remembers: its recurrent state, or a history that is folded into it now and then."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from aim.models.pool import Pool
from aim.ops.window import Window


@dataclass(frozen=True)
class MambaState(Pool):
    """What every layer remembers, for a pool of slots, and what the last ``advance`` has read,
    which is no slot's. A new state is zero.
    """

    conv: Tensor  # (n_layer, slots, d_conv - 1, conv_dim), oldest first
    ssm: Tensor  # (n_layer, slots, nheads, headdim, d_state) float32
    read: Tensor  # (n_layer, slots, window, ...), which is the model's own

    def _pooled(self) -> dict[str, Tensor]:
        return {"conv": self.conv, "ssm": self.ssm}

    def take(self, slots: Tensor, items: int, conv: Tensor, ssm: Tensor) -> None:
        """What slots (R,) remember after ``items`` items: conv (L, R, d_conv - 1, conv_dim), zero
        before the first item, and ssm (L, R, H, P, N).
        """
        self.conv[:, slots], self.ssm[:, slots] = conv.to(self.conv.dtype), ssm


@dataclass(frozen=True)
class HistoryState(Pool):
    """What every layer remembers, for a pool of slots: a state as it stood at ``origin``, and the
    items since (``ops.window``), and of those of a pass that are not settled.
    """

    ring: Tensor  # (L, S, K, conv_dim), K at least d_conv
    items: Tensor  # (L, S, nheads, W, headdim)
    keys: Tensor  # (L, S, W, d_state)
    decay: Tensor  # (L, S, nheads, W) float32
    base: Tensor  # (L, S, nheads, headdim, d_state)
    origins: Tensor  # (1, S) int32, items in ``base``, of all layers
    spare: int = 0  # items of a pass that the window has room for behind those it keeps

    def _pooled(self) -> dict[str, Tensor]:
        return {**self.windows()._asdict(), "origins": self.origins}

    @property
    def origin(self) -> Tensor:
        """Items in ``base`` (S,) int32."""
        return self.origins[0]

    @property
    def first(self) -> int:
        """Items that are kept before the first fold, so many that a pass finds room behind them."""
        return self.keys.shape[2] - self.spare

    def take(self, slots: Tensor, items: int, conv: Tensor, ssm: Tensor) -> None:
        """As ``MambaState.take``."""
        past = conv.shape[2]
        at = torch.arange(items - past, items, device=slots.device) % self.ring.shape[2]
        self.ring[:, slots[:, None], at] = conv.to(self.ring.dtype)
        self.base[:, slots] = ssm.to(self.base.dtype)
        self.origin[slots] = items

    def windows(self) -> Window:
        """Of all layers, (L, S, ...) each."""
        return Window(self.ring, self.items, self.keys, self.decay, self.base)

    def layer(self, i: int) -> Window:
        """Of one layer, (S, ...) each; views."""
        return Window(*(part[i] for part in self.windows()))


def new_mamba_state(
    layers: int,
    slots: int,
    conv: tuple[int, int],
    ssm: tuple[int, int, int],
    read: tuple[int, int],
    like: Tensor,
) -> MambaState:
    """A zero state; ``conv`` in ``like``'s dtype, ``ssm`` and ``read`` in float32."""
    return MambaState(
        torch.zeros(layers, slots, *conv, dtype=like.dtype, device=like.device),
        torch.zeros(layers, slots, *ssm, dtype=torch.float32, device=like.device),
        torch.zeros(layers, slots, *read, dtype=torch.float32, device=like.device),
    )
