"""The Transformer's decoding kernels equal their readable twins on odd shapes; what they must not
read is NaN.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")
from aim.ops.attention import rotary_table
from aim.ops.linear import linear_in_reference, linear_out_reference, product_reference
from aim.ops.triton.decode import attention as kernels
from aim.ops.triton.decode import attention_ahead as ahead
from aim.ops.triton.decode.attention import (
    add_norm,
    attend,
    attend_reference,
    embed,
    embed_reference,
    gate,
    gate_reference,
)
from aim.ops.triton.decode.attention_ahead import attend_ahead
from aim.ops.triton.decode.few_rows import (
    linear_in,
    linear_out,
    out_parts,
)
from aim.ops.triton.decode.some_rows import product_in, product_out, tiles
from tests.ops.triton.decoding import (
    DEVICE,
    DTYPES,
    NAN,
    OVERLAP,
    close,
    guarded,
    poison,
    random,
    same,
    settle,
)

# the interpreter computes with NaN what it then masks
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def aged(
    positions: list[int], heads: int, size: int, room: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values (S, H, C, P) of rows with so many items and of one row more, NaN beyond; and
    positions (S,).
    """
    at = torch.tensor([*positions, 5], device=DEVICE)
    keys, values = (random(len(at), heads, room, size, seed=i, dtype=dtype) for i in range(2))
    empty = torch.arange(room, device=DEVICE) >= at[:, None]
    for part in (keys, values):
        part.masked_fill_(empty[:, None, :, None], NAN)
    return keys, values, at


def check_attend(
    positions: list[int], heads: int, size: int, grid: int, dtype: torch.dtype
) -> None:
    rows, room, width = len(positions), 32 * -(-(grid**2) // 32), heads * size
    keys, values, at = aged(positions, heads, size, room, dtype)
    turns = rotary_table(grid, size, 10000.0, DEVICE)
    projected = random(rows, 3 * width, seed=7, dtype=dtype)
    wanted_keys, wanted_values = keys.clone(), values.clone()
    wanted = attend_reference(projected, wanted_keys, wanted_values, turns, at)
    out, behind = guarded(rows, width, dtype)
    settle()
    attend(projected, keys, values, turns, at, out, OVERLAP)
    wanted[at[:rows] < 0] = NAN
    close(out, wanted, dtype)
    close(keys, wanted_keys, dtype)
    close(values, wanted_values, dtype)
    assert behind.isnan().all()


@DTYPES
@pytest.mark.parametrize("plan", [(16, 1), (32, 2), (256, 8)])
def test_attend_at_every_age(
    monkeypatch: pytest.MonkeyPatch, plan: tuple[int, int], dtype: torch.dtype
):
    monkeypatch.setattr(kernels, "_plan", lambda programs: plan)
    check_attend([0, -1, 1, 15, 16, 17, 63], 3, 16, 8, dtype)


@pytest.mark.parametrize("programs", [1, 40, 128, 129, 10_000])
def test_every_plan_is_a_power_of_two(programs: int):
    block, warps = kernels._plan(programs)
    assert block & (block - 1) == 0
    assert warps in (1, 2, 4, 8)


@pytest.mark.gpu
@DTYPES
@pytest.mark.parametrize("rows", [1, 2, 32, 100])
def test_attend_at_the_sizes_of_gpt_b(rows: int, dtype: torch.dtype):
    check_attend([(-1, 0, 7, 100, 255, 254, 31)[i % 7] for i in range(rows)], 12, 64, 16, dtype)


@DTYPES
def test_embed(dtype: torch.dtype):
    width, positions = 48, torch.tensor([3, 0, -1, 9], device=DEVICE)
    codes = torch.tensor([5, 2, 10**6], device=DEVICE)
    words, classes, weight = (
        random(23, width, dtype=dtype),
        random(5, width, seed=1),
        random(width, seed=2),
    )
    residual, behind = guarded(3, width, torch.float32)
    x, behind_x = guarded(3, width, dtype)
    settle()
    embed(codes, positions, words, classes, weight, residual, x, 1e-2, OVERLAP)
    wanted, normed = embed_reference(codes, positions, words, classes, weight, 1e-2)
    close(residual, wanted, torch.float32)
    close(x, normed, dtype)
    assert torch.equal(residual[1], classes[1])
    assert behind.isnan().all()
    assert behind_x.isnan().all()


def test_embed_reads_the_class_alone_at_position_0():
    zeros = torch.zeros(2, dtype=torch.int64, device=DEVICE)
    classes, residual, x = random(2, 16), poison(2, 16), poison(2, 16)
    settle()
    embed(zeros, zeros, poison(3, 16), classes, random(16, seed=1), residual, x, 1e-5, OVERLAP)
    assert torch.equal(residual, classes)
    assert x.isfinite().all()


@DTYPES
def test_add_norm(dtype: torch.dtype):
    rows, width = 3, 40
    residual, update, weight = (
        random(rows, width),
        random(rows, width, seed=1, dtype=dtype),
        random(width, seed=2),
    )
    wanted = residual + update.float()
    x, behind = guarded(rows, width, dtype)
    settle()
    add_norm(residual, update, weight, x, 1e-2, OVERLAP)
    close(residual, wanted, torch.float32)
    close(x, torch.nn.functional.rms_norm(wanted, (width,), weight, 1e-2), dtype)
    assert behind.isnan().all()


@DTYPES
@pytest.mark.parametrize(("rows", "features"), [(1, 48), (3, 530)])
def test_gate(dtype: torch.dtype, rows: int, features: int):
    pairs = random(rows, 2 * features, dtype=dtype)
    out, behind = guarded(rows, features, dtype)
    settle()
    gate(pairs, out, OVERLAP)
    close(out, gate_reference(pairs), dtype)
    assert behind.isnan().all()


@DTYPES
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("rows", "features", "length"), [(1, 38, 48), (2, 70, 48), (2, 22, 1040)])
def test_linear_in_of_a_plain_norm(
    dtype: torch.dtype, rows: int, features: int, length: int, gated: bool
):
    x, weight = (
        random(rows, length, dtype=dtype),
        random(features, length, seed=1, dtype=dtype) * length**-0.5,
    )
    squares = random(rows, 3, seed=2).square() * length
    out, behind = guarded(rows, features // 2 if gated else features, dtype)
    settle()
    linear_in(x, weight, out, squares, None, 1e-2, OVERLAP, gated)
    close(out, linear_in_reference(x, weight, squares, None, 1e-2, gated), dtype)
    assert behind.isnan().all()


@DTYPES
@pytest.mark.parametrize("rows", [1, 2])
def test_linear_out_without_norm_and_gate(dtype: torch.dtype, rows: int):
    width, length = 22, 48
    u, weight = random(rows, length, dtype=dtype), random(width, length, seed=1, dtype=dtype)
    residual, gain = random(rows, width, seed=3), random(width, seed=4)
    wanted = linear_out_reference(u, weight, None, residual, 1.0)
    (scaled, behind), sums = guarded(rows, width, dtype), poison(rows, out_parts(width))
    settle()
    linear_out(
        u, weight, None, residual, gain.expand(rows, -1), None, 0, scaled, sums, 1e-2, OVERLAP
    )
    close(residual, wanted, torch.float32)
    close(scaled, wanted * gain, dtype)
    close(sums.sum(1), wanted.square().sum(1), torch.float32)
    assert behind.isnan().all()


@DTYPES
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("rows", "features", "length", "tile"),
    [(3, 70, 48, 64), (20, 130, 256, 16), (33, 18, 192, 32)],
)
def test_product_in(
    dtype: torch.dtype, rows: int, features: int, length: int, gated: bool, tile: int
):
    x, weight = (
        random(rows, length, dtype=dtype),
        random(features, length, seed=1, dtype=dtype) * length**-0.5,
    )
    for squares in (None, random(rows, 3, seed=2).square() * length):
        out, behind = guarded(rows, features // 2 if gated else features, dtype)
        settle()
        product_in(x, weight, out, squares, gated, 1e-2, OVERLAP, tile)
        close(out, linear_in_reference(x, weight, squares, None, 1e-2, gated), dtype)
        assert behind.isnan().all()


@DTYPES
@pytest.mark.parametrize(
    ("rows", "features", "length", "tile"),
    [(3, 70, 48, 64), (20, 40, 256, 16), (33, 130, 640, 64), (33, 130, 640, 32)],
)
def test_product_out_adds_its_shares_up(
    dtype: torch.dtype, rows: int, features: int, length: int, tile: int
):
    x, weight = random(rows, length, dtype=dtype), random(features, length, seed=1, dtype=dtype)
    residual, gain = random(rows, features, seed=3), random(features, seed=4)
    arrived = torch.zeros(tiles(features, tile) + 1, dtype=torch.int32, device=DEVICE)
    for _ in range(2):  # what it counts with is zero again
        wanted = residual + product_reference(x, weight)
        (scaled, behind), squares = (
            guarded(rows, features, dtype),
            poison(rows, tiles(features, tile)),
        )
        settle()
        product_out(x, weight, residual, gain, scaled, squares, arrived, OVERLAP, tile)
        close(residual, wanted, dtype)
        close(scaled, wanted * gain, dtype)
        close(squares.sum(1), wanted.square().sum(1), dtype)
        assert behind.isnan().all()
        same(arrived, torch.zeros_like(arrived))


def check_attend_ahead(
    positions: list[int],
    width: int,
    heads: int,
    size: int,
    grid: int,
    dtype: torch.dtype,
    broken: int | None = None,
) -> None:
    """With ``broken``, items from that one on are not finite."""
    rows, room, channels, total = len(positions), 32 * -(-(grid**2) // 32), heads * size, grid**2
    keys, values, at = aged(positions, heads, size, room, dtype)
    turns = rotary_table(grid, size, 10000.0, DEVICE)
    projected = random(rows, width, 3 * channels, seed=7, dtype=dtype)
    if broken is not None:
        projected[:, broken:, : 2 * channels], projected[:, broken:, 2 * channels :] = (
            NAN,
            torch.inf,
        )
    wanted_keys, wanted_values = keys.clone(), values.clone()
    wanted = poison(rows, width, channels)
    for w in range(width):
        now = torch.where((at < 0) | (at + w >= total), -1, at + w)
        one = attend_reference(projected[:, w], wanted_keys, wanted_values, turns, now)
        wanted[now[:rows] >= 0, w] = one[now[:rows] >= 0]
    out, behind = guarded(rows * width, channels, dtype)
    settle()
    attend_ahead(projected.flatten(0, 1), keys, values, turns, at, out, width, OVERLAP)
    got = out.view(rows, width, -1)[:, :broken]
    inside = ((at[:rows, None] + torch.arange(width, device=DEVICE)) < total)[:, :broken]
    assert got[at[:rows] < 0].isnan().all()
    close(got[inside], wanted[:, :broken][inside], dtype)
    if broken is None:
        close(keys, wanted_keys, dtype)
        close(values, wanted_values, dtype)
    assert behind.isnan().all()


@DTYPES
@pytest.mark.parametrize("plan", [(16, 1), (32, 2), (256, 8)])
@pytest.mark.parametrize("width", [2, 5, 16])
def test_attend_ahead_at_every_age(
    monkeypatch: pytest.MonkeyPatch, width: int, plan: tuple[int, int], dtype: torch.dtype
):
    monkeypatch.setattr(ahead, "_plan", lambda programs: plan)
    check_attend_ahead([0, -1, 1, 17, 63], width, 2, 16, 8, dtype)


@DTYPES
def test_an_item_that_is_not_finite_spoils_none_before_it(dtype: torch.dtype):
    check_attend_ahead([0, 7, 40], 4, 1, 16, 8, dtype, broken=2)


@pytest.mark.gpu
@DTYPES
@pytest.mark.parametrize(("rows", "width"), [(2, 16), (1, 4), (32, 2)])
def test_attend_ahead_at_the_sizes_of_gpt_b(rows: int, width: int, dtype: torch.dtype):
    ages = [(-1, 0, 7, 100, 255, 254, 31)[i % 7] for i in range(rows)]
    check_attend_ahead(ages, width, 12, 64, 16, dtype)
