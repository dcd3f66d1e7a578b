"""Products with weights: with those that may change, and with those that will not, for decoding on
a CPU.

A library picks a kernel, and with it the order of a sum, by the number of rows. One seed is to give
one image, alone and in any batch; so in float32 on a CPU the first way is taken in which a row's
bits are the same among 4 rows and among any multiple of it, tried out once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Product: TypeAlias = Callable[[Tensor], Tensor]
Bound: TypeAlias = Callable[[Tensor], Product]  # of a weight

# (N, K) of weights on which a way is tried, about where libraries are known to change their kernel
SIZES = (64, 128), (680, 128), (64, 512), (1944, 384), (80, 1536)
MOST = 64  # rows


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.linear``: x (..., K), weight (N, K), bias (N,) -> (..., N).

    In float32 on a CPU, where no gradient is wanted, a row's bits are the same among any multiple
    of 4 rows.
    """
    if (
        x.is_cpu
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    ):
        return _steady(torch.get_num_threads())(x, weight, bias)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """``nn.Linear`` by ``linear``."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        return linear(input, self.weight, self.bias)


def fixed_product(weight: Tensor) -> Product:
    """``x -> x W^T`` for a weight (N, K), float32 or bfloat16, that will not change: x (..., K) of
    its dtype -> (..., N).

    A few rows are bound by reading the weight, and the plain layout is read badly: on a CPU a copy
    of it in oneDNN's blocked layout takes half the time or less. Elsewhere, or where that does not
    work, this is ``linear``.
    """
    weight = weight.detach()
    if weight.device.type != "cpu" or not can_pack(weight.dtype):
        return partial(linear, weight=weight)
    return _packed(weight)


@lru_cache(maxsize=4)
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has the packed product, whose operators are private to it, and it is
    right here.

    Right includes that a row's bits do not depend on the number of rows.
    """
    return _is_right(_packed, dtype)


@lru_cache(maxsize=8)
def _steady(threads: int) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """``F.linear`` or the first replacement of it that is right with this many threads."""

    def bound(way: Callable[..., Tensor], weight: Tensor) -> Product:
        return partial(way, weight=weight)

    ways: tuple[Callable[..., Tensor], ...] = F.linear, _onednn
    return next((way for way in ways if _is_right(partial(bound, way), torch.float32)), _by_fours)


def _is_right(bound: Bound, dtype: torch.dtype) -> bool:
    """Whether products are near the true ones, with the same bits in every number of rows."""
    generator = torch.Generator().manual_seed(0)
    near = 1e-5 if dtype == torch.float32 else 1e-2
    for size in SIZES:
        weight = torch.randn(size, generator=generator).to(dtype)
        x = torch.randn(MOST, size[1], generator=generator).to(dtype)
        try:
            product = bound(weight)
            fours = torch.cat([product(part) for part in x.split(4)])
            same = all(
                torch.equal(product(x[:rows]), fours[:rows]) for rows in (8, 12, 16, 24, 32, MOST)
            )
        except (AttributeError, NotImplementedError, RuntimeError, TypeError):
            return False
        want = F.linear(x.double(), weight.double())
        if not same or (fours - want).norm() >= near * want.norm():
            return False
    return True


def _packed(weight: Tensor) -> Product:
    operators = torch.ops.mkldnn  # what torch.compile calls for a frozen model
    blocked = operators._reorder_linear_weight(weight)
    return lambda x: operators._linear_pointwise(x, blocked, None, "none", [], "")


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _by_fours(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    parts = [F.linear(part, weight, bias) for part in x.flatten(0, -2).split(4)]
    return torch.cat(parts).view(*x.shape[:-1], -1)


def linear_in_reference(
    x: Tensor,
    weight: Tensor,
    squares: Tensor | None = None,
    offset: Tensor | None = None,
    eps: float = 1e-5,
    gated: bool = False,
) -> Tensor:
    """What ``triton.decode.few_rows.linear_in`` computes, float32."""
    y = x.float() @ weight.float().T
    if squares is not None:
        y = y / torch.sqrt(squares.sum(1, keepdim=True) / x.shape[1] + eps)
    if offset is not None:
        y = y + offset[: len(x)]
    return F.silu(y[:, ::2]) * y[:, 1::2] if gated else y


def linear_out_reference(
    u: Tensor,
    weight: Tensor,
    squares: Tensor | None,
    residual: Tensor,
    gate: Tensor | float,
    eps: float = 1e-5,
) -> Tensor:
    """The new residual of ``triton.decode.few_rows.linear_out``, float32; gate (R, D)."""
    y = u.float() @ weight.float().T
    return residual + gate * (
        y if squares is None else y / torch.sqrt(squares.sum(1, keepdim=True) / u.shape[1] + eps)
    )


def product_reference(x: Tensor, weight: Tensor) -> Tensor:
    """What the shares of ``triton.decode.some_rows.product`` add up to, float32."""
    return x.float() @ weight.float().T
