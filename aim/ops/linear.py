"""Products with fixed weights, for decoding on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

Product = Callable[[Tensor], Tensor]


def fixed_product(weight: Tensor) -> Product:
    """``x -> x W^T`` for a weight (N, K) that will not change: x (..., K) of its dtype -> (..., N).

    On a CPU with a copy of the weight in oneDNN's blocked layout, about twice as fast for a few rows in bfloat16: they are
    bound by reading the weight, and the plain layout is read badly. Else, and for a float32 weight, whose bits must not
    depend on the layout, it is ``F.linear``.
    """
    weight = weight.detach()
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or not can_pack():
        return partial(F.linear, weight=weight)
    return _packed(weight)


@lru_cache(maxsize=1)
def can_pack() -> bool:
    """Whether this PyTorch has the packed product, whose operators are private to it, and it is right here."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(3, 80, generator=generator).bfloat16(), torch.randn(48, 80, generator=generator).bfloat16()
    try:
        got = _packed(weight)(x)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
    return torch.allclose(got.float(), x.float() @ weight.float().T, rtol=2e-2, atol=2e-2)


def _packed(weight: Tensor) -> Product:
    operators = torch.ops.mkldnn  # what torch.compile calls for a frozen model
    blocked = operators._reorder_linear_weight(weight)
    return lambda x: operators._linear_pointwise(x, blocked, None, "none", [], "")
