"""The kernels of AiM's mixing of several items equal the readable twin item by item, at every age
of a row; what they must not read is NaN, and so are guesses.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")
from aim.ops.triton.decode.window_ahead import mix_ahead
from aim.ops.window import MixWeights, Window, mix_reference
from tests.ops.triton.decoding import (
    AGES,
    DTYPES,
    NAN,
    OVERLAP,
    aged,
    close,
    guarded,
    mix_weights,
    random,
    same,
    settle,
)

# the interpreter computes with NaN what it then masks
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
OFTEN = 16
AGES = {**AGES, "at the end of the first window": (47, 0)}  # with room for 16 more


def one_by_one(
    projected: Tensor, twin: Window, weights: MixWeights, positions: Tensor, origins: Tensor
) -> tuple[Tensor, Tensor]:
    """The twin over projected (R, W, E)."""
    made = []
    for w in range(projected.shape[1]):
        at = torch.where(positions < 0, positions, positions + w)
        made.append(mix_reference(projected[:, w], twin, weights, at, origins))
    out, squares = (torch.stack(part, 1) for part in zip(*made, strict=True))
    return out, squares


def check(
    ages: list[tuple[int, int]],
    heads: int,
    channels: int,
    width: int,
    dtype: torch.dtype,
    size: int = 16,
    broken: int | None = None,
) -> None:
    """With ``broken``, items from that one on are not finite."""
    held, rows = 48, len(ages)
    pool, positions, origins = aged(ages, 1, heads, channels, size, held, dtype, spare=16)
    weights = mix_weights(heads, channels, size)
    window, twin = (Window(*(part[0].clone() for part in pool)) for _ in range(2))
    inner = heads * channels
    projected = random(rows, width, 2 * inner + 2 * size + heads, seed=7, dtype=dtype)
    if broken is not None:
        projected[:, broken:] = torch.tensor([NAN, torch.inf])[: width - broken].repeat(width)[
            : width - broken, None
        ]
    wanted, sums = one_by_one(projected, twin, weights, positions, origins)
    out, behind = guarded(rows * width, inner, dtype)
    squares, behind_squares = guarded(rows * width, heads, torch.float32)
    settle()
    mix_ahead(
        projected.flatten(0, 1), window, weights, positions, origins, out, squares, OFTEN, width,
        OVERLAP,
    )  # fmt: skip
    idle = positions[:rows] < 0
    kept = width if broken is None else broken
    got, got_sums = out.view(rows, width, -1), squares.view(rows, width, -1).sum(-1)
    for row, (pos, _) in enumerate(ages):
        if pos < 0:
            assert got[row].isnan().all() and got_sums[row].isnan().all()
            continue
        close(got[row, :kept], wanted[row, :kept], dtype)
        close(got_sums[row, :kept], sums[row, :kept], dtype)
    if broken is None:
        same(window.ring, twin.ring)
        for part, value in zip(window, twin, strict=True):
            close(part, value, dtype)
    for part, before in zip(window, pool, strict=True):
        same(part[rows:], before[0, rows:])
        same(part[:rows][idle], before[0, :rows][idle])
    same(window.base, pool.base[0])
    assert behind.isnan().all()
    assert behind_squares.isnan().all()


@DTYPES
def test_items_at_every_age(dtype: torch.dtype):
    check(list(AGES.values()), 2, 32, 3, dtype)


@pytest.mark.parametrize("age", ["inside the first window", "at the end of a later window"])
def test_as_many_items_as_there_may_be(age: str):
    check([AGES[age]], 1, 16, 16, torch.bfloat16)


def test_several_heads_to_a_program():
    ages = "since a fold", "idle", "at the end of the first window", "at its class"
    check([AGES[age] for age in ages] * 3, 8, 16, 2, torch.bfloat16)


@DTYPES
def test_an_item_that_is_not_finite_spoils_none_before_it(dtype: torch.dtype):
    ages = "inside the first window", "since a fold", "at its class"
    check([AGES[age] for age in ages], 1, 16, 4, dtype, broken=2)


@pytest.mark.gpu
@DTYPES
@pytest.mark.parametrize("width", [2, 16])
@pytest.mark.parametrize("rows", [1, 2])
def test_items_at_the_sizes_of_aim_b(rows: int, width: int, dtype: torch.dtype):
    check(list(AGES.values()) * rows, 24, 64, width, dtype, 128)
