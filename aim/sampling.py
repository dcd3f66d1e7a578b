"""From logits to codes: guidance, temperature, top-k, top-p, the draw. Pure functions of float32 tensors, one row a request.

A row's code depends on that row alone: the same logits, parameters, seed and position give the same code in any batch. So
there are no sums over rows, and no fused multiply-adds, whose rounding may differ between the body and the tail of a loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from aim.config import SamplingParams
from aim.ops.draw import gumbel, pieces


class RowParams(NamedTuple):
    """Sampling parameters of K rows on the device, and what is known about all of them on the host.

    The flags let ``sample`` leave out work that would change nothing; True is always right.
    """

    cfg_scale: Tensor  # (K,) float32
    temperature: Tensor  # (K,) float32
    top_p: Tensor  # (K,) float32
    top_k: Tensor  # (K,) int64, 0 keeps all
    seed: Tensor  # (K,) int64 in [0, 2^32)
    filtered: bool = True  # a row asks for top-k or top-p
    tempered: bool = True  # a row has a temperature other than 1

    @classmethod
    def of(cls, params: Sequence[SamplingParams], seeds: Sequence[int], device: torch.device | str = "cpu") -> RowParams:
        """Rows for the given parameters and seeds, which pair up."""
        floats = torch.tensor([[p.cfg_scale, p.temperature, p.top_p] for p in params], dtype=torch.float32).view(-1, 3)
        integers = torch.tensor([[p.top_k, s] for p, s in zip(params, seeds, strict=True)], dtype=torch.int64).view(-1, 2)
        cfg_scale, temperature, top_p = floats.T.contiguous().to(device).unbind()
        top_k, seed = integers.T.contiguous().to(device).unbind()
        filtered = any(p.top_k > 0 or p.top_p < 1 for p in params)
        tempered = any(p.temperature != 1 for p in params)
        return cls(cfg_scale, temperature, top_p, top_k, seed, filtered, tempered)


def guide(cond: Tensor, uncond: Tensor, cfg_scale: Tensor) -> Tensor:
    """Classifier-free guidance ``uncond + (cond - uncond) * cfg_scale``: (K, V), (K, V), (K,) -> (K, V) float32.

    A code at -inf in either is at -inf, whatever the scale; +inf becomes the largest float, so that something can be drawn.
    """
    uncond = uncond.float()
    guided = (cond.float() - uncond).mul_(cfg_scale.unsqueeze(1)).add_(uncond)
    return guided.nan_to_num_(nan=-torch.inf, neginf=-torch.inf)


def sample(cond_logits: Tensor, uncond_logits: Tensor, params: RowParams, positions: Tensor) -> Tensor:
    """Draw one code a row: logits (K, V) twice, positions (K,) int64 -> codes (K,) int64.

    A row without guidance passes the same logits as both. Temperature 0 takes the most likely code, of several the lowest.
    The draw is Gumbel-max: the argmax over kept codes of ``logit / temperature - log(E)``, E exponential noise.
    """
    logits = guide(cond_logits, uncond_logits, params.cfg_scale)
    logits.sub_(logits.amax(-1, keepdim=True))
    noise = gumbel(params.seed, positions, logits.shape[-1])
    if params.tempered:
        drawn = (params.temperature > 0).unsqueeze(1)
        logits.div_(torch.where(drawn, params.temperature.unsqueeze(1), 1.0))
        noise.mul_(drawn)
    if params.filtered:
        logits.masked_fill_(logits < _threshold(logits, params.top_k, params.top_p).unsqueeze(1), -torch.inf)
    return logits.add_(noise).argmax(-1)


def _threshold(logits: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """The smallest logit that top-k, then top-p keep: logits (K, V) with maximum 0, (K,), (K,) -> (K,)."""
    codes = logits.shape[-1]
    ordered = _descending(logits)
    last = torch.where(top_k > 0, top_k, codes).clamp(max=codes) - 1
    kth = ordered.gather(1, last.unsqueeze(1))  # fewer than top_k codes are greater than it
    weight = ordered.masked_fill(ordered < kth, -torch.inf)
    for piece in pieces(weight):
        piece.exp_()
    mass = weight.cumsum(-1)
    reached = (mass < top_p.unsqueeze(1) * mass[:, -1:]).sum(-1, keepdim=True)  # the first place where the mass is enough
    nucleus = ordered.gather(1, reached.clamp(max=codes - 1))
    nucleus = torch.where(top_p.unsqueeze(1) < 1, nucleus, -torch.inf)  # rounding must not cut the tail of a row that keeps all
    return torch.maximum(kth, nucleus).squeeze(1)


def _descending(logits: Tensor) -> Tensor:
    """Values of each row in descending order."""
    if logits.device.type == "cpu":  # NumPy sorts with vector instructions: about thirty times as fast here
        return torch.from_numpy(np.sort(logits.detach().neg().numpy(), axis=-1)).neg_()
    return logits.sort(-1, descending=True).values
