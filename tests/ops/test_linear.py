"""Products: F.linear's values whatever the layout, a row's bits whatever the company, and F.linear
itself where there is no other.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from aim.ops import linear as ops
from aim.ops.linear import Product, _steady, can_pack, fixed_product, linear


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    for asked in (can_pack, _steady):
        asked.cache_clear()
    yield
    for asked in (can_pack, _steady):
        asked.cache_clear()


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
    # in bfloat16 a processor with AMX sums otherwise beyond 32 rows, 16 pictures with guidance
    for rows in (8, 12, 16, 20, 32, *([48] if dtype == torch.float32 else [])):
        assert torch.equal(product(x[:rows]), fours[:rows]), rows


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(64, 128), (680, 128), (344, 64), (1944, 384), (768, 1536)])
def test_in_float32_a_row_has_the_same_bits_among_any_multiple_of_four(
    shape: tuple[int, int], threads: int
):
    x, weight = operands((64, shape[1]), shape[0], torch.float32)
    bias = torch.randn(shape[0], generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            fours = torch.cat([linear(part, weight, bias) for part in x.split(4)])
            for rows in (8, 12, 16, 20, 32, 64):
                assert torch.equal(linear(x[:rows], weight, bias), fours[:rows]), rows
            torch.testing.assert_close(fours, F.linear(x, weight, bias), atol=1e-3, rtol=1e-4)
            inner = linear(x.view(4, 16, -1), weight, bias)
            assert torch.equal(inner.flatten(0, 1), fours)
    finally:
        torch.set_num_threads(before)


def test_where_no_way_is_right_rows_go_by_fours(monkeypatch: pytest.MonkeyPatch):
    x, weight = operands((3, 6, 64), 32, torch.float32)
    monkeypatch.setattr(ops, "_is_right", lambda bound, dtype: False)
    ops._steady.cache_clear()
    with torch.no_grad():
        got = linear(x, weight)
        fours = [F.linear(part, weight) for part in x.flatten(0, 1).split(4)]
    assert torch.equal(got, torch.cat(fours).view(3, 6, 32))


def test_a_gradient_goes_through_linear_itself(monkeypatch: pytest.MonkeyPatch):
    x, weight = operands((16, 128), 32, torch.float32)
    monkeypatch.setattr(ops, "_steady", None)  # not asked
    got = linear(x, weight.requires_grad_())
    assert torch.equal(got, F.linear(x, weight))
    assert got.requires_grad


def test_needs_no_gradient_and_gives_none():
    x, weight = operands((2, 64), 32, torch.bfloat16)
    assert not fixed_product(weight.requires_grad_())(x).requires_grad


def test_where_packing_is_absent_or_wrong_it_is_linear(monkeypatch: pytest.MonkeyPatch):
    x, weight = operands((2, 64), 32, torch.bfloat16)

    def absent(weight: Tensor) -> Product:
        raise AttributeError(
            "'_OpNamespace' 'mkldnn' object has no attribute '_reorder_linear_weight'"
        )

    def zero(weight: Tensor) -> Product:
        return lambda x: x.new_zeros(x.shape[0], weight.shape[0])

    def company(weight: Tensor) -> Product:
        return lambda x: F.linear(x, weight) * (1 + 0.001 * len(x))

    for packed in (absent, zero, company):
        can_pack.cache_clear()
        monkeypatch.setattr(ops, "_packed", packed)
        assert not can_pack(torch.bfloat16)
        assert torch.equal(fixed_product(weight)(x), F.linear(x, weight))
