"""The fused mixing equals its definition and the scan, values and gradients."""

import pytest
import torch

from aim.ops.scan import scan_chunked

pytest.importorskip("triton", reason="Triton is not installed")
from aim.ops.triton.scan import mix_reference, scan_mixing

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def inputs(rows: int, length: int, heads: int, channels: int, size: int) -> dict[str, torch.Tensor]:
    make = torch.Generator().manual_seed(rows * 1000 + length)
    mixed = torch.randn(rows, length, heads * channels + 2 * size, generator=make)
    x, B, C = mixed.to(DEVICE).split([heads * channels, size, size], -1)
    dt = torch.rand(rows, length, heads, generator=make) * 0.2 + 1e-3
    A = -torch.rand(heads, generator=make) * 8 - 0.5
    D = torch.randn(heads, generator=make)
    return {
        "x": x.unflatten(-1, (heads, channels)),
        "dt": dt.to(DEVICE),
        "A": A.to(DEVICE),
        "B": B,
        "C": C,
        "D": D.to(DEVICE),
    }


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / (b.norm() + 1e-3)).item()


@pytest.mark.parametrize("shape", [(1, 1, 1, 16, 16), (2, 65, 3, 16, 8), (1, 130, 2, 32, 16)])
def test_mixing_equals_the_scan_with_gradients(shape: tuple[int, int, int, int, int]):
    given = {k: v.detach().requires_grad_() for k, v in inputs(*shape).items()}
    results = []
    for scan in (scan_mixing, lambda **kw: scan_chunked(**kw, chunk=32)[0]):
        y = scan(**given)
        weight = torch.sin(torch.arange(y.numel(), device=DEVICE, dtype=torch.float32)).view(
            y.shape
        )
        results.append((y.detach(), *torch.autograd.grad((y * weight).sum(), list(given.values()))))
    for name, mine, wanted in zip(("y", *given), *results, strict=True):
        assert relative(mine, wanted) < 3e-5, (name, relative(mine, wanted))


def test_the_reference_is_the_definition():
    gram, x = torch.randn(1, 3, 3), torch.randn(1, 3, 1, 2)
    row, col = torch.randn(1, 1, 3), torch.randn(1, 1, 3)
    y = mix_reference(gram, x, row, col, torch.tensor([0.5]))
    for i in range(3):
        wanted = 0.5 * x[0, i, 0] + sum(
            gram[0, i, j] * torch.exp(row[0, 0, i] - col[0, 0, j]) * x[0, j, 0]
            for j in range(i + 1)
        )
        torch.testing.assert_close(y[0, i, 0], wanted)
