"""Products with fixed weights: F.linear's values whatever the layout, rows alone, and F.linear
itself where there is no other.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from aim.ops import linear
from aim.ops.linear import can_pack, fixed_product


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    can_pack.cache_clear()
    yield
    can_pack.cache_clear()


def operands(shape: tuple[int, ...], out: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, weight = (
        torch.randn(shape, generator=generator),
        torch.randn(out, shape[-1], generator=generator),
    )
    return x.to(dtype), weight.to(dtype)


@pytest.mark.parametrize("dtype, near", [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize(
    "shape, out", [((1, 1), 1), ((2, 64), 344), ((3, 33), 7), ((2, 5, 48), 17), ((300, 128), 64)]
)
def test_equals_linear(shape: tuple[int, ...], out: int, dtype: torch.dtype, near: float):
    x, weight = operands(shape, out, dtype)
    product, want = fixed_product(weight), F.linear(x.double(), weight.double())
    for _ in range(2):
        got = product(x)
        assert got.dtype == dtype
        assert got.shape == want.shape
        assert (got - want).norm() < near * want.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width, out", [(64, 344), (512, 2192), (1536, 768)])
def test_a_row_has_the_same_bits_among_any_multiple_of_four(
    width: int, out: int, dtype: torch.dtype
):
    x, weight = operands((48, width), out, dtype)
    product = fixed_product(weight)
    fours = torch.cat([product(part) for part in x.split(4)])
    for rows in (8, 12, 16, 20, 32, 48):
        assert torch.equal(product(x[:rows]), fours[:rows]), rows


def test_needs_no_gradient_and_gives_none():
    x, weight = operands((2, 64), 32, torch.bfloat16)
    assert not fixed_product(weight.requires_grad_())(x).requires_grad


def test_where_packing_is_absent_or_wrong_it_is_linear(monkeypatch: pytest.MonkeyPatch):
    x, weight = operands((2, 64), 32, torch.bfloat16)

    def absent(weight: Tensor) -> linear.Product:
        raise AttributeError(
            "'_OpNamespace' 'mkldnn' object has no attribute '_reorder_linear_weight'"
        )

    def zero(weight: Tensor) -> linear.Product:
        return lambda x: x.new_zeros(x.shape[0], weight.shape[0])

    def company(weight: Tensor) -> linear.Product:
        return lambda x: F.linear(x, weight) * (1 + 0.001 * len(x))

    for packed in (absent, zero, company):
        can_pack.cache_clear()
        monkeypatch.setattr(linear, "_packed", packed)
        assert not can_pack(torch.bfloat16)
        assert torch.equal(fixed_product(weight)(x), F.linear(x, weight))
