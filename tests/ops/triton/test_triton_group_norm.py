"""The fused passes over pixels equal their definitions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")
from aim.ops.triton import group_norm as ops

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [
    (2, 1, 1, 32),
    (2, 1, 7, 64),
    (1, 8, 8, 128),
    (2, 15, 20, 32),
    (1, 20, 15, 256),
    (2, 5, 13, 512),
]
DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch):
    """New memory is full of NaN, so that what is not written shows."""

    def empty(*args: object, **kwargs: object) -> Tensor:
        return torch.full_like(made(*args, **kwargs), torch.nan)

    made = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", empty)
    create = Tensor.new_empty
    monkeypatch.setattr(
        Tensor, "new_empty", lambda *args, **kwargs: create(*args, **kwargs).fill_(torch.nan)
    )


def random(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def close(got: Tensor, want: Tensor) -> None:
    assert got.dtype == want.dtype
    tolerance = (
        {"rtol": 2e-5, "atol": 2e-5}
        if want.dtype == torch.float32
        else {"rtol": 1e-2, "atol": 1e-2}
    )
    torch.testing.assert_close(got, want, **tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("silu, biased", [(True, True), (False, False)])
def test_group_norm(shape: tuple[int, ...], dtype: torch.dtype, silu: bool, biased: bool):
    x, channels = random(shape, dtype) * 3 + 1, shape[3]
    weight, shift = random((channels,), torch.float32, 1), random((channels,), torch.float32, 2)
    bias = random((channels,), dtype, 3) if biased else None
    got = ops.group_norm(x, ops.moments(x, bias), weight, shift, 1e-6, silu, bias)
    close(got, ops.group_norm_reference(x, weight, shift, 1e-6, silu, bias))


@pytest.mark.parametrize("parts", [1, 3, 64])
def test_chunks_of_several_tiles_and_a_ragged_end(monkeypatch: pytest.MonkeyPatch, parts: int):
    monkeypatch.setattr(ops, "TILE", 512)
    monkeypatch.setattr(ops, "PARTS", parts)
    x, one, none = (
        random((2, 15, 20, 64), torch.float32),
        torch.ones(64, device=DEVICE),
        torch.zeros(64, device=DEVICE),
    )
    found = ops.moments(x)
    assert found.means.shape[1] == -(-300 // found.chunk)
    close(
        ops.group_norm(x, found, one, none, 1e-6, False),
        ops.group_norm_reference(x, one, none, 1e-6, False),
    )


@pytest.mark.parametrize("mean", [1e3, -1e5])
def test_a_large_mean_leaves_a_small_variance_intact(mean: float):
    x = random((2, 15, 20, 64), torch.float32) * 0.5 + mean
    one, none = torch.ones(64, device=DEVICE), torch.zeros(64, device=DEVICE)
    got = ops.group_norm(x, ops.moments(x), one, none, 1e-6, False).double()
    exact = x.double().unflatten(3, (32, 2))
    variance, centre = torch.var_mean(exact, (1, 2, 4), correction=0, keepdim=True)
    want = ((exact - centre) / (variance + 1e-6).sqrt()).flatten(3)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=4 * abs(mean) * 2**-24)


def test_what_is_constant_becomes_the_shift():
    x, shift = torch.full((1, 5, 5, 32), 7.0, device=DEVICE), random((32,), torch.float32)
    got = ops.group_norm(x, ops.moments(x), torch.ones(32, device=DEVICE), shift, 1e-6, False)
    torch.testing.assert_close(got, shift.expand_as(got), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("biased, added", [(True, True), (True, False), (False, True)])
def test_join(shape: tuple[int, ...], dtype: torch.dtype, biased: bool, added: bool):
    h, bias, x = random(shape, dtype), random(shape[3:], dtype, 1), random(shape, dtype, 2)
    given = (h, bias if biased else None, x if added else None)
    want = ops.join_reference(*given)
    got, found = ops.join(*given)
    close(got, want)
    again = ops.moments(got)
    assert torch.equal(found.means, again.means)
    assert torch.equal(found.squares, again.squares)
    close(ops.join_enlarged(*given), ops.join_reference(*given, enlarge=True))


def test_an_image_does_not_depend_on_its_batch():
    x, weight, shift = (
        random((3, 15, 20, 32), torch.bfloat16),
        random((32,), torch.float32, 1),
        random((32,), torch.float32, 2),
    )
    many = ops.group_norm(x, ops.moments(x), weight, shift, 1e-6)
    for i in range(3):
        one = x[i : i + 1].contiguous()
        assert torch.equal(ops.group_norm(one, ops.moments(one), weight, shift, 1e-6)[0], many[i])


def test_widths_that_are_no_power_of_two_are_refused():
    with pytest.raises(AssertionError):
        ops.moments(torch.zeros(1, 2, 2, 96, device=DEVICE))
