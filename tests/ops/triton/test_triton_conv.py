"""The convolution's kernels equal their twin, values and gradients, on odd shapes and strided
input.
"""

from __future__ import annotations

import pytest
import torch

from aim.ops.conv import shifted_sum

pytest.importorskip("triton", reason="Triton is not installed")
from aim.ops.triton.conv import convolve

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 16, 4), (2, 37, 70, 4), (3, 64, 64, 2), (1, 65, 130, 3), (1, 40, 8, 1)],
    ids=str,
)
def test_values_and_gradients(shape: tuple[int, int, int, int]) -> None:
    rows, length, channels, taps = shape
    g = torch.Generator().manual_seed(length)
    around = torch.randn(rows, length, channels + 9, generator=g).to(DEVICE)
    x = around[..., 4 : 4 + channels].detach().requires_grad_()
    weight = torch.randn(channels, taps, generator=g).to(DEVICE).requires_grad_()
    bias = torch.randn(channels, generator=g).to(DEVICE).requires_grad_()
    dy = torch.randn(rows, length, channels, generator=g).to(DEVICE)
    results = []
    for conv in (convolve, shifted_sum):
        y = conv(x, weight, bias)
        results.append((y.detach(), *torch.autograd.grad(y, (x, weight, bias), dy)))
    for name, mine, wanted in zip(("y", "x", "weight", "bias"), *results, strict=True):
        torch.testing.assert_close(mine, wanted, atol=1e-4, rtol=1e-4, msg=name)


def test_bfloat16_stays_bfloat16() -> None:
    x = torch.randn(1, 8, 16, device=DEVICE).bfloat16()
    weight, bias = torch.randn(16, 4, device=DEVICE), torch.randn(16, device=DEVICE)
    y = convolve(x, weight, bias)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(
        y.float(), shifted_sum(x, weight, bias).float(), atol=2e-2, rtol=1e-2
    )
