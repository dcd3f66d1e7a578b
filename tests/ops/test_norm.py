"""The norms against float64, in float32 whatever comes in, row by row."""

import numpy as np
import pytest
import torch

from aim.ops.norm import gated_rms_norm, rms_norm


def oracle(x: torch.Tensor, weight: torch.Tensor, eps: float) -> np.ndarray:
    x, weight = x.double().numpy(), weight.double().numpy()
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


@pytest.mark.parametrize("eps", [1e-5, 1e-6])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 5, 64), (4, 1025)])
def test_rms_norm_equals_its_formula(shape: tuple[int, ...], scale: float, eps: float):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator) * scale
    weight = torch.randn(shape[-1], generator=generator)
    got = rms_norm(x, weight, eps)
    assert got.shape == x.shape and got.dtype == torch.float32
    np.testing.assert_allclose(got.double().numpy(), oracle(x, weight, eps), rtol=3e-6, atol=1e-7)


def test_gate_is_multiplied_before_the_norm():
    generator = torch.Generator().manual_seed(1)
    y, z = torch.randn(2, 5, 33, generator=generator)
    weight = torch.randn(33, generator=generator)
    gated = y.double() * z.double() / (1 + torch.exp(-z.double()))
    np.testing.assert_allclose(
        gated_rms_norm(y, z, weight).double().numpy(),
        oracle(gated, weight, 1e-5),
        rtol=1e-5,
        atol=1e-6,
    )


def test_half_precision_is_computed_and_returned_in_float32():
    x, z = torch.randn(2, 4, 64, generator=torch.Generator().manual_seed(2)).bfloat16()
    weight = torch.ones(64)
    assert torch.equal(rms_norm(x, weight), rms_norm(x.float(), weight))
    assert torch.equal(gated_rms_norm(x, z, weight), gated_rms_norm(x.float(), z.float(), weight))
    assert rms_norm(x, weight).dtype == gated_rms_norm(x, z, weight).dtype == torch.float32


def test_zero_stays_zero():
    assert torch.equal(rms_norm(torch.zeros(2, 8), torch.ones(8)), torch.zeros(2, 8))


@pytest.mark.parametrize("width", [37, 512, 1024])
def test_a_row_does_not_depend_on_the_others(width: int):
    y, z = torch.randn(2, 33, width, generator=torch.Generator().manual_seed(3))
    weight = torch.rand(width)
    for count in (2, 3, 4, 7, 16, 33):
        together, gated = rms_norm(y[:count], weight), gated_rms_norm(y[:count], z[:count], weight)
        for i in range(count):
            assert torch.equal(together[i], rms_norm(y[i : i + 1], weight)[0])
            assert torch.equal(gated[i], gated_rms_norm(y[i : i + 1], z[i : i + 1], weight)[0])
