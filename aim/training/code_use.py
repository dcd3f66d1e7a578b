"""Which codes of a codebook are used while it is trained."""

from __future__ import annotations

import torch
from torch import Tensor

from aim.training.parallel import ALONE, Processes


class CodeUse:
    """Counts which codes are used, and replaces those that are not by features of the day."""

    def __init__(self, size: int, device: torch.device, processes: Processes = ALONE) -> None:
        self.counts = torch.zeros(size, device=device)
        self._processes = processes

    def add(self, codes: Tensor) -> None:
        """Count codes (B, T), and those of the other processes."""
        self.counts += self._processes.total(
            torch.bincount(codes.flatten(), minlength=len(self.counts))
        )

    def used(self) -> Tensor:
        """The fraction of codes seen since the last ``revive``."""
        return (self.counts > 0).float().mean()

    @torch.no_grad()
    def revive(self, table: Tensor, features: Tensor) -> None:
        """Overwrite unused rows of ``table`` (V, d) in place by features (B, d, h, w) of this
        batch, and start a new count.

        Every process gets what the first one took of its share of the batch.
        """
        dead = (self.counts == 0).nonzero().squeeze(1)
        pool = features.permute(0, 2, 3, 1).flatten(0, 2)
        pick = torch.randint(len(pool), (len(dead),), device=pool.device)
        table[dead] = pool[pick].to(table.dtype) * table.norm(dim=1).median()
        self._processes.from_first(table)
        self.counts.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """For a training checkpoint: a count cut short would take rare codes for unused ones."""
        return {"counts": self.counts}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """From a training checkpoint."""
        self.counts.copy_(state["counts"])
