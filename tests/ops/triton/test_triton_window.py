"""The kernels of AiM's mixing equal their readable twins at every age of a row, write what they
must and nothing else; what they must not read is NaN.
"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")
from aim.ops.triton.decode import window as mixing
from aim.ops.triton.decode.window_fold import fold
from aim.ops.window import Window, fold_reference, mix_reference
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


def check_mix(
    ages: list[tuple[int, int]],
    heads: int,
    channels: int,
    dtype: torch.dtype,
    folds: bool,
    size: int = 16,
) -> None:
    held, rows = 64, len(ages)
    pool, positions, origins = aged(ages, 1, heads, channels, size, held, dtype)
    weights = mix_weights(heads, channels, size)
    window, twin = (Window(*(part[0].clone() for part in pool)) for _ in range(2))
    projected = random(rows, 2 * heads * channels + 2 * size + heads, seed=7, dtype=dtype)
    wanted, sums = mix_reference(projected, twin, weights, positions, origins)
    if folds:
        fold_reference(
            Window(*(part[None] for part in twin)), positions, origins, rows, held, OFTEN
        )
    out, behind = guarded(rows, heads * channels, dtype)
    squares, behind_squares = guarded(rows, heads, torch.float32)
    settle()
    mixing.mix(projected, window, weights, positions, origins, out, squares, OFTEN, folds, OVERLAP)
    idle = positions[:rows] < 0
    wanted[idle], sums[idle] = NAN, NAN
    close(out, wanted, dtype)
    close(squares.sum(1), sums, dtype)
    for part, value in zip(window, twin, strict=True):
        close(part, value, dtype)
    same(window.ring, twin.ring)
    for part, before in zip(window, pool, strict=True):
        same(part[rows:], before[0, rows:])
        same(part[:rows][idle], before[0, :rows][idle])
    assert behind.isnan().all()
    assert behind_squares.isnan().all()


@DTYPES
@pytest.mark.parametrize("folds", [True, False])
def test_mix_at_every_age(dtype: torch.dtype, folds: bool):
    check_mix(list(AGES.values()), 2, 16 if folds else 32, dtype, folds)


@DTYPES
@pytest.mark.parametrize("crew", [(4, 1), (2, 2)])
def test_mix_with_several_rows_to_a_program(
    monkeypatch: pytest.MonkeyPatch, crew: tuple[int, int], dtype: torch.dtype
):
    monkeypatch.setattr(mixing, "_crew", lambda rows, held: crew)
    check_mix(list(AGES.values()), 8, 16, dtype, False)


def test_mix_of_many_rows():
    check_mix(
        [AGES["inside the first window"], AGES["since a fold"], AGES["idle"], AGES["just folded"]]
        * 33,
        8,
        16,
        torch.bfloat16,
        False,
    )


@pytest.mark.parametrize("together", [4, 8])
def test_mix_with_several_heads_to_a_program(monkeypatch: pytest.MonkeyPatch, together: int):
    monkeypatch.setattr(mixing, "_plan", lambda rows, count: (together, 4, 2))
    check_mix(
        [
            AGES["at the end of the first window"],
            AGES["at the end of a later window"],
            AGES["idle"],
        ],
        8,
        16,
        torch.bfloat16,
        True,
        64,
    )


@pytest.mark.parametrize("rows", [1, 2, 9, 64, 65, 129, 1024])
def test_every_plan_divides_the_heads(rows: int):
    for heads in (1, 2, 3, 4, 6, 8, 24, 48):
        together, warps, stages = mixing._plan(rows, heads)
        assert heads % together == 0
        assert together <= 8
        assert warps in (2, 4)
        assert stages >= 1


def check_fold(
    ages: list[tuple[int, int]],
    layers: int,
    heads: int,
    channels: int,
    held: int,
    dtype: torch.dtype,
    size: int = 16,
) -> None:
    # fold comes after the item at pos
    reached = [(pos + 1, origin) if pos >= 0 else (pos, origin) for pos, origin in ages]
    pool, positions, origins = aged(reached, layers, heads, channels, size, held, dtype)
    positions -= (positions >= 0).long()
    window, twin = (Window(*(part.clone() for part in pool)) for _ in range(2))
    fold_reference(twin, positions, origins, len(ages), held, OFTEN)
    settle()
    fold(window, positions, origins, len(ages), held, OFTEN, OVERLAP)
    full = [
        row
        for row, (pos, origin) in enumerate(ages)
        if pos - origin + 1 == (OFTEN if origin else held)
    ]
    assert twin.base[:, full].isfinite().all()
    close(window.base[:, full], twin.base[:, full], dtype)
    others = [row for row in range(len(ages) + 1) if row not in full]
    same(window.base[:, others], pool.base[:, others])
    for part, before in zip(window[:4], pool[:4], strict=True):
        same(part, before)


@DTYPES
def test_fold_takes_up_full_windows_and_no_others(dtype: torch.dtype):
    ages = [(31, 0), (-1, 3), (30, 0), (47, 32), (18, 3), (0, 0), (15, 0)]
    check_fold(ages, layers=5, heads=2, channels=32, held=32, dtype=dtype)


def test_fold_of_many_rows_takes_all_layers_in_one_program():
    check_fold(
        [(-1, 0)] * 32 + [(15, 0)], layers=5, heads=64, channels=16, held=16, dtype=torch.bfloat16
    )


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("plan", "crew"), [((1, 4, 1), (1, 2)), ((4, 4, 3), (1, 2)), ((4, 2, 2), (4, 1))]
)
@pytest.mark.parametrize("age", list(AGES))
def test_mix_at_the_sizes_of_aim_b(
    monkeypatch: pytest.MonkeyPatch, plan: tuple[int, int, int], crew: tuple[int, int], age: str
):
    monkeypatch.setattr(mixing, "_plan", lambda rows, count: plan)
    monkeypatch.setattr(mixing, "_crew", lambda rows, held: crew)
    check_mix([AGES[age], AGES["idle"]], 24, 64, torch.bfloat16, crew[0] < 4, 128)


@pytest.mark.gpu
@DTYPES
@pytest.mark.parametrize("rows", [1, 100])
def test_fold_at_the_sizes_of_aim_b(dtype: torch.dtype, rows: int):
    check_fold(
        [(63, 0), (79, 64), *[(70, 64)] * rows],
        layers=5,
        heads=24,
        channels=64,
        held=64,
        dtype=dtype,
        size=128,
    )
