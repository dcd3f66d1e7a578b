"""Every kernel of a decoding step equals its readable twin, writes what it must and nothing else;
what it must not read is NaN.
"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")
from aim.ops.linear import linear_in_reference, linear_out_reference, product_reference
from aim.ops.triton.decode.few_rows import (
    linear_in,
    linear_out,
    out_parts,
)
from aim.ops.triton.decode.norm import add_norm, add_norm_reference, begin, begin_reference
from aim.ops.triton.decode.some_rows import narrow, product
from tests.ops.triton.decoding import (
    DEVICE,
    DTYPES,
    OVERLAP,
    close,
    guarded,
    poison,
    random,
    settle,
)

# the interpreter computes with NaN what it then masks
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
OFTEN = 16


@DTYPES
@pytest.mark.parametrize(
    ("rows", "features", "length"),
    [(1, 37, 48), (2, 70, 48), (2, 16, 16), (1, 9, 1040), (2, 83, 64)],
)
def test_linear_in(dtype: torch.dtype, rows: int, features: int, length: int):
    x, weight = random(rows, length, dtype=dtype), random(features, length, seed=1, dtype=dtype)
    out, behind = guarded(rows, features, torch.float32)
    settle()
    linear_in(x, weight, out, overlap=OVERLAP)
    close(out, linear_in_reference(x, weight), dtype)
    assert behind.isnan().all()

    squares, cond = (
        random(rows, 3, seed=2).square() * length,
        random(rows + 1, features + 11, seed=3),
    )
    out, behind = guarded(rows, features, dtype)
    settle()
    linear_in(x, weight, out, squares, cond[:, 5:], 1e-2, OVERLAP)
    close(out, linear_in_reference(x, weight, squares, cond[:, 5 : 5 + features], 1e-2), dtype)
    assert behind.isnan().all()


@DTYPES
@pytest.mark.parametrize(("rows", "width", "length"), [(1, 22, 48), (2, 22, 48), (2, 7, 1040)])
@pytest.mark.parametrize("last", [False, True])
def test_linear_out(dtype: torch.dtype, rows: int, width: int, length: int, last: bool):
    u, weight = random(rows, length, dtype=dtype), random(width, length, seed=1, dtype=dtype)
    squares, residual = random(rows, 5, seed=2).square() * length, random(rows, width, seed=3)
    cond, gate, gain = random(rows + 1, 4 * width, seed=4), width, 3 * width
    scaled, behind = guarded(rows, width, dtype)
    sums, behind_sums = guarded(rows, out_parts(width), torch.float32)
    wanted = linear_out_reference(
        u, weight, squares, residual, cond[:rows, gate : gate + width], 1e-2
    )
    settle()
    linear_out(
        u,
        weight,
        squares,
        residual,
        cond,
        gate,
        None if last else gain,
        scaled,
        sums,
        1e-2,
        OVERLAP,
    )
    close(residual, wanted, torch.float32)
    if last:
        assert scaled.isnan().all()
        assert sums.isnan().all()
    else:
        close(scaled, wanted * cond[:rows, gain : gain + width], dtype)
        close(sums.sum(1), wanted.square().sum(1), torch.float32)
    assert behind.isnan().all()
    assert behind_sums.isnan().all()


@DTYPES
@pytest.mark.parametrize(("width", "shares"), [(16, 1), (48, 1), (48, 3)])
def test_add_norm(dtype: torch.dtype, width: int, shares: int):
    rows, eps = 3, 1e-2
    update, squares = (
        random(shares, rows, width, seed=1, dtype=dtype),
        random(rows, 5, seed=2).square() * 40,
    )
    cond, weight = random(rows + 1, 5 * width, seed=3), random(width, seed=4)
    gain, shift, gate = 3 * width, 2 * width, width
    for added in ({}, {"update": update, "squares": squares, "inner": 40, "gate": gate}):
        for twice in (None, weight):
            residual = random(rows, width)
            (x, behind), before = guarded(rows, width, dtype), residual.clone()
            wanted, normed = add_norm_reference(
                residual, cond, gain, shift, eps, twice=twice, **added
            )
            settle()
            add_norm(residual, cond, gain, shift, x, eps, twice=twice, overlap=OVERLAP, **added)
            close(residual, wanted, torch.float32)
            close(x, normed, dtype)
            assert torch.equal(residual, before) == (not added)
            assert behind.isnan().all()


@DTYPES
@pytest.mark.parametrize(
    ("rows", "features", "length", "shares", "tile"),
    [(3, 70, 48, 1, 64), (20, 40, 256, 2, 16), (33, 17, 192, 4, 32)],
)
def test_product(dtype: torch.dtype, rows: int, features: int, length: int, shares: int, tile: int):
    x, weight = random(rows, length, dtype=dtype), random(features, length, seed=1, dtype=dtype)
    out, behind = guarded(shares * rows, features, torch.float32)
    settle()
    product(x, weight, out.view(shares, rows, features), OVERLAP, tile)
    close(out.view(shares, rows, features).sum(0), product_reference(x, weight), dtype)
    assert behind.isnan().all()


def test_products_of_few_features_have_narrow_programs():
    assert [narrow(features) for features in (16, 2048, 4096, 4224, 8192)] == [32, 32, 32, 64, 64]
    assert narrow(2048, 4) == 64


@DTYPES
@pytest.mark.parametrize("offset", [0, 1])
def test_begin(dtype: torch.dtype, offset: int):
    width, first = 48, 64
    steps = {  # position, origin that was: origin that shall be
        (-1, 3): 3,
        (0, 37): 0,
        (5, 0): 0,
        (63, 0): 0,
        (64, 0): 64,
        (70, 64): 64,
        (79, 64): 64,
        (80, 64): 80,
        (9, 9): 9,
        (500, 490): 490,
    }
    positions, origins = (
        torch.tensor(part, device=DEVICE) for part in zip(*steps, (7, 7), strict=True)
    )
    rows, origins = len(steps), origins.int()
    codes = torch.arange(rows, device=DEVICE) * 3
    codes[2], codes[5] = -1, 10**6
    words, places, cond = (
        random(23, width, dtype=dtype),
        random(90, width, seed=1, dtype=dtype),
        random(rows + 1, 3 * width, seed=2),
    )
    made = begin_reference(
        codes, positions, origins, words, places, cond, width, 2 * width, offset, first, OFTEN, 1e-2
    )
    assert made[0].tolist() == list(steps.values())
    residual, behind = guarded(rows, width, torch.float32)
    x, behind_x = guarded(rows, width, dtype)
    settle()
    begin(
        codes,
        positions,
        origins,
        words,
        places,
        cond,
        residual,
        x,
        width,
        2 * width,
        offset,
        first,
        OFTEN,
        1e-2,
        OVERLAP,
    )
    assert origins.tolist() == [*steps.values(), 7]
    busy = positions[:rows] >= 0  # nobody reads what an idle row makes
    close(residual[busy], made[1][busy], torch.float32)
    close(x[busy], made[2][busy], dtype)
    assert residual.isfinite().all()
    assert behind.isnan().all()
    assert behind_x.isnan().all()


def test_begin_reads_the_class_alone_at_position_0():
    codes, positions, origins = (
        torch.zeros(2, dtype=kind, device=DEVICE)
        for kind in (torch.int64, torch.int64, torch.int32)
    )
    cond, residual, x = random(2, 48), poison(2, 16), poison(2, 16)
    settle()
    begin(
        codes,
        positions,
        origins,
        poison(3, 16),
        poison(5, 16),
        cond,
        residual,
        x,
        16,
        32,
        0,
        16,
        OFTEN,
        1e-5,
        OVERLAP,
    )
    assert torch.equal(residual, cond[:, :16])
    assert x.isfinite().all()
