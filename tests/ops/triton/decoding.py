"""What the tests of the decoding kernels share: operands, poisoned outputs, comparisons."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")
from aim.ops.triton.decode.common import overlaps
from aim.ops.window import MixWeights, Window

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OVERLAP = overlaps(DEVICE)
NAN = float("nan")
DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"]
)

AGES = {  # position, items before the origin
    "idle": (-1, 3),
    "at its class": (0, 0),
    "with fewer items than taps": (2, 0),
    "inside the first window": (40, 0),
    "at the end of the first window": (63, 0),
    "just folded": (64, 64),
    "since a fold": (70, 64),
    "at the end of a later window": (79, 64),
    "since a prefill": (3, 2),
    "at the end of the window since a prefill": (20, 5),
}


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


def aged(
    ages: list[tuple[int, int]],
    layers: int,
    heads: int,
    channels: int,
    size: int,
    held: int,
    dtype: torch.dtype,
    slots: int = 1,
    spare: int = 0,
) -> tuple[Window, Tensor, Tensor]:
    """A window (L, S, ...), positions, origins of rows of these ages and ``slots`` more, with room
    for ``spare`` items besides; NaN where nothing was ever written, and where it is old.
    """
    total, width = len(ages) + slots, heads * channels + 2 * size
    positions, origins = (torch.tensor([*part, *[9] * slots]) for part in zip(*ages, strict=True))
    shapes = (
        (4 + spare, width),
        (heads, held + spare, channels),
        (held + spare, size),
        (heads, held + spare),
        (heads, channels, size),
    )
    parts = [random(layers, total, *shape, seed=i) for i, shape in enumerate(shapes)]
    parts[1] *= 0.3
    parts[3] = -parts[3].abs().cumsum(-1) * 0.2
    for row, (pos, origin) in enumerate(ages):
        past = max(pos, 0) - origin
        new = [t % (4 + spare) for t in range(max(pos - 4, 0), pos)]
        parts[0][:, row, [t for t in range(4 + spare) if t not in new]] = NAN
        parts[1][:, row, :, max(past, 0) :] = NAN
        parts[2][:, row, max(past, 0) :] = NAN
        parts[3][:, row, :, max(past, 0) :] = NAN
        if origin == 0:
            parts[4][:, row] = NAN
    types = (dtype, dtype, dtype, torch.float32, dtype)
    window = Window(*(part.to(kind) for part, kind in zip(parts, types, strict=True)))
    return window, positions.to(DEVICE), origins.to(DEVICE, torch.int32)


def mix_weights(heads: int, channels: int, size: int) -> MixWeights:
    inner = heads * channels
    dt_bias = random(heads, seed=13)
    dt_bias[0] = -100.0  # dt underflows, and is divided by
    rates = -random(heads, seed=14).abs() - 0.1
    conv = random(4, inner + 2 * size, seed=11) * 0.5, random(inner + 2 * size, seed=12)
    return MixWeights(*conv, dt_bias, rates, random(heads, seed=15), random(inner, seed=16))
