"""Optimiser groups, learning rate and the running average of the weights."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


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


def schedule(
    kind: Literal["cosine", "linear", "constant"], progress: float, warmup: float, floor: float = 0
) -> float:
    """Learning rate factor at ``progress`` in [0, 1]: linear up over ``warmup``, then down to
    ``floor`` by ``kind``.
    """
    if progress < warmup:
        return progress / warmup
    if kind == "constant":
        return 1.0
    done = min(1.0, (progress - warmup) / (1 - warmup))
    left = 1 - done if kind == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return floor + (1 - floor) * left


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give every group ``factor`` of the learning rate that the optimiser was made with."""
    for group in optimizer.param_groups:
        group["lr"] = factor * optimizer.defaults["lr"]


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A running average of the weights of ``model``, whose memory is short at first."""
    assert all(t.is_floating_point() for t in model.state_dict().values()), "a counter in a model"

    @torch.no_grad()
    def average(mine: Any, theirs: Any, count: Any) -> None:
        n = int(count)
        torch._foreach_lerp_(mine, theirs, 1 - min(decay, (1 + n) / (10 + n)))

    out = AveragedModel(model, multi_avg_fn=average).eval().requires_grad_(False)
    out.n_averaged += 1  # the weights at the start are averaged, too
    return out
