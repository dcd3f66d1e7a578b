"""What models remember of the rows they decode: tensors passed in, never kept on a module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor

Self = TypeVar("Self", bound="Pool")


class Pool:
    """Tensors (layers, slots, ...), one a field of a dataclass, that slots share. A new one is
    zero.
    """

    def _pooled(self) -> dict[str, Tensor]:
        """The fields that slots share."""
        return vars(self)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._pooled().values())

    @property
    def slots(self) -> int:
        """How many rows can be remembered."""
        return next(iter(self)).shape[1]

    def copy(self, src: Tensor, dst: Tensor) -> None:
        """Copy slots ``src (K,)`` over slots ``dst (K,)`` in place."""
        for part in self:
            part[:, dst] = part[:, src]

    def rows(self: Self, count: int) -> Self:
        """A view of the first ``count`` slots."""
        parts = {name: part[:, :count] for name, part in self._pooled().items()}
        return type(self)(**{**vars(self), **parts})

    def clear(self, fresh: Tensor) -> None:
        """Zero the slots where ``fresh (slots,)`` is True; decided on the device, no host
        synchronisation on a GPU.
        """
        if fresh.is_cuda or fresh.any():
            for part in self:
                part.masked_fill_(fresh.view(-1, *[1] * (part.dim() - 2)), 0)


def window_items(positions: Tensor, width: int, total: int) -> tuple[Tensor, Tensor]:
    """Positions (R,) of the first items of windows -> those of all (R, width), and which of them
    there are not: those of idle rows, and from ``total`` on.
    """
    at = positions.unsqueeze(1) + torch.arange(width, device=positions.device)
    return at, (positions < 0).unsqueeze(1) | (at >= total)
