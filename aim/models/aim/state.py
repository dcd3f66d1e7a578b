"""The recurrent state of AiM: a named value that is passed in, never kept on a module."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class MambaState(NamedTuple):
    """What every layer remembers, for a pool of slots. A new state is zero."""

    conv: Tensor  # (n_layer, slots, d_conv - 1, conv_dim), oldest first
    ssm: Tensor  # (n_layer, slots, nheads, headdim, d_state) float32

    @property
    def slots(self) -> int:
        """How many rows can be remembered."""
        return self.ssm.shape[1]

    def copy(self, src: Tensor, dst: Tensor) -> None:
        """Copy slots ``src (K,)`` over slots ``dst (K,)`` in place."""
        for part in self:
            part[:, dst] = part[:, src]

    def rows(self, count: int) -> MambaState:
        """A view of the first ``count`` slots."""
        return MambaState(self.conv[:, :count], self.ssm[:, :count])

    def gather(self, slots: Tensor) -> MambaState:
        """A copy of the given slots (R,)."""
        return MambaState(self.conv[:, slots], self.ssm[:, slots])

    def scatter(self, slots: Tensor, rows: MambaState) -> None:
        """Write rows (R, ...) to the given slots (R,) in place."""
        for part, value in zip(self, rows, strict=True):
            part[:, slots] = value

    def clear(self, fresh: Tensor) -> None:
        """Zero the slots where ``fresh (slots,)`` is True; decided on the device, no host
        synchronisation on a GPU.
        """
        if fresh.is_cuda or fresh.any():
            self.conv.masked_fill_(fresh[:, None, None], 0)
            self.ssm.masked_fill_(fresh[:, None, None, None], 0)


def new_mamba_state(
    layers: int, slots: int, conv: tuple[int, int], ssm: tuple[int, int, int], like: Tensor
) -> MambaState:
    """A zero state; ``conv`` in ``like``'s dtype, ``ssm`` in float32."""
    return MambaState(
        torch.zeros(layers, slots, *conv, dtype=like.dtype, device=like.device),
        torch.zeros(layers, slots, *ssm, dtype=torch.float32, device=like.device),
    )
