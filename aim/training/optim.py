"""Optimiser groups, learning rate and the running average of the weights."""

from __future__ import annotations

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import nn

from aim.training.parallel import local


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two parameter groups: matrices of linear layers and convolutions decay; norms, biases,
    tables, embeddings and SSM scalars do not.
    """
    decayed = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Linear)
        or (isinstance(module, (nn.Conv1d, nn.Conv2d)) and module.groups == 1)
    }
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if id(p) in decayed], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
    ]


def adamw(
    model: nn.Module, lr: float, weight_decay: float, betas: tuple[float, float] = (0.9, 0.95)
) -> torch.optim.AdamW:
    """AdamW over ``decay_groups``, fused on a GPU."""
    on_gpu = next(model.parameters()).is_cuda
    return torch.optim.AdamW(decay_groups(model, weight_decay), lr=lr, betas=betas, fused=on_gpu)


SCHEDULES = ("cosine", "linear", "constant")


def schedule(kind: str, progress: float, warmup: float, floor: float = 0.0) -> float:
    """Learning rate factor at ``progress`` in [0, 1]: up over ``warmup``, then down to ``floor`` by
    ``kind``, one of SCHEDULES.
    """
    if kind == "cosine" or progress < warmup:
        return cosine(progress, warmup, floor)
    if kind == "constant":
        return 1.0
    return floor + (1 - floor) * (1 - min(1.0, (progress - warmup) / (1 - warmup)))


def cosine(progress: float, warmup: float, floor: float = 0.0) -> float:
    """Learning rate factor at ``progress`` in [0, 1]: linear up over ``warmup``, then a cosine down
    to ``floor``.
    """
    if progress < warmup:
        return progress / warmup
    turn = math.pi * min(1.0, (progress - warmup) / (1 - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(turn))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the learning rate ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = lr


Averaged = TypeVar("Averaged", bound=nn.Module)


class EMA(Generic[Averaged]):
    """Exponential running average of a model's weights, with a short memory at first."""

    def __init__(self, model: Averaged, decay: float) -> None:
        self.decay = decay
        self.model: Averaged = copy.deepcopy(model).eval().requires_grad_(False)
        self.updates = 0
        self.follow(model)

    def follow(self, model: Averaged) -> None:
        """Average ``model`` from now on, and look where both keep their weights: after one of them
        was wrapped or moved.
        """
        self._mine = local(list(self.model.state_dict().values()))
        self._theirs = local(list(model.state_dict().values()))
        assert all(t.is_floating_point() for t in self._mine), "a counter cannot be averaged"

    @torch.no_grad()
    def update(self) -> None:
        """Take one step of the average."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._mine, self._theirs, 1 - decay)

    def state_dict(self) -> dict[str, object]:
        """For a training checkpoint."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        """From a training checkpoint."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]
