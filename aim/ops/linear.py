"""Products with fixed weights, for decoding on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor

Product = Callable[[Tensor], Tensor]


def fixed_product(weight: Tensor) -> Product:
    """``x -> x W^T`` for a weight (N, K), float32 or bfloat16, that will not change: x (..., K) of
    its dtype -> (..., N).

    A few rows are bound by reading the weight, and the plain layout is read badly: on a CPU a copy
    of it in oneDNN's blocked layout takes half the time or less. Elsewhere, or where that does not
    work, this is ``F.linear``.
    """
    weight = weight.detach()
    if weight.device.type != "cpu" or not can_pack(weight.dtype):
        return partial(F.linear, weight=weight)
    return _packed(weight)


@lru_cache(maxsize=4)
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has the packed product, whose operators are private to it, and it is
    right here.

    Right includes that a row's bits are the same among 4 rows and among 16.
    """
    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(16, 1536, generator=generator),
        torch.randn(80, 1536, generator=generator),
    )
    try:
        product, rows = _packed(weight.to(dtype)), x.to(dtype)
        got = product(rows)
        parts = torch.cat([product(part) for part in rows.split(4)])
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False
    want = F.linear(rows.double(), weight.to(dtype).double())
    near = 1e-5 if dtype == torch.float32 else 1e-2
    return torch.equal(got, parts) and bool((got - want).norm() < near * want.norm())


def _packed(weight: Tensor) -> Product:
    operators = torch.ops.mkldnn  # what torch.compile calls for a frozen model
    blocked = operators._reorder_linear_weight(weight)
    return lambda x: operators._linear_pointwise(x, blocked, None, "none", [], "")
