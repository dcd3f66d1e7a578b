"""Products with fixed weights: F.linear's values whatever the layout, and F.linear itself where there is no other."""

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
    x, weight = torch.randn(shape, generator=generator), torch.randn(out, shape[-1], generator=generator)
    return x.to(dtype), weight.to(dtype)


@pytest.mark.parametrize("shape, out", [((1, 1), 1), ((2, 64), 344), ((3, 33), 7), ((2, 5, 48), 17), ((300, 128), 64)])
def test_equals_linear(shape: tuple[int, ...], out: int):
    x, weight = operands(shape, out, torch.bfloat16)
    product = fixed_product(weight)
    for _ in range(2):
        got = product(x)
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.float(), F.linear(x.float(), weight.float()), rtol=1e-2, atol=1e-2 * shape[-1] ** 0.5)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 16])
def test_float32_is_linear_bit_for_bit(rows: int):
    x, weight = operands((rows, 96), 80, torch.float32)
    assert torch.equal(fixed_product(weight)(x), F.linear(x, weight))


def test_needs_no_gradient_and_gives_none():
    x, weight = operands((2, 64), 32, torch.bfloat16)
    assert not fixed_product(weight.requires_grad_())(x).requires_grad


def test_where_packing_is_absent_or_wrong_it_is_linear(monkeypatch: pytest.MonkeyPatch):
    x, weight = operands((2, 64), 32, torch.bfloat16)

    def absent(weight: Tensor) -> linear.Product:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_reorder_linear_weight'")

    for packed in (absent, lambda weight: lambda x: torch.zeros(x.shape[0], weight.shape[0], dtype=x.dtype)):
        can_pack.cache_clear()
        monkeypatch.setattr(linear, "_packed", packed)
        assert not can_pack()
        assert torch.equal(fixed_product(weight)(x), F.linear(x, weight))
