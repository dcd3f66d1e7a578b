"""What the tests of the decoding kernels share: operands, poisoned outputs, comparisons."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")
from aim.ops.triton.decode.common import overlaps

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OVERLAP = overlaps(DEVICE)
NAN = float("nan")
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"]
)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def poison(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full(shape, NAN, dtype=dtype, device=DEVICE)


def guarded(rows: int, columns: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """NaN (rows, columns), and what lies behind them in memory."""
    flat = poison(rows * columns + 64, dtype=dtype)
    return flat[: rows * columns].view(rows, columns), flat[rows * columns :]


def settle() -> None:
    """A kernel that overlaps reads what older ones wrote before it waits for the last."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def close(got: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    """Within rounding, which the interpreter does towards zero; NaN only where NaN is wanted."""
    assert torch.equal(got.isnan(), want.isnan())
    far = 2e-2 if dtype == torch.bfloat16 else 2e-5
    got, want = got.float().nan_to_num(), want.float().nan_to_num()
    assert (got - want).norm() <= far * want.norm() + 1e-12
    torch.testing.assert_close(got, want, rtol=far, atol=far * want.abs().max().item())


def same(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=0, atol=0, equal_nan=True)
