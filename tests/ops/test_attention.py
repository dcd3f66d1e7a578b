"""Attention and its rotary embedding against the formulas, and a new item's bits, which nobody
else's items change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aim.ops import attention
from aim.ops.attention import BLOCK, attend, attend_one, capacity, reach, rotary_table, rotate


@pytest.fixture
def asked_anew() -> Iterator[None]:
    attention._can_reach.cache_clear()
    yield
    attention._can_reach.cache_clear()


def items(
    rows: int, heads: int, room: int, size: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """q (R, H, head_dim), keys and values (R, H, C, head_dim)."""
    generator = torch.Generator().manual_seed(rows + 10 * heads + size)
    q, keys, values = (
        torch.randn(rows, heads, n, size, generator=generator) for n in (1, room, room)
    )
    return q[:, :, 0] * 2, keys.to(dtype), values.to(dtype)


def twin(q: Tensor, keys: Tensor, values: Tensor, counts: list[int]) -> Tensor:
    """Row by row and head by head, in float64."""
    out = torch.zeros(q.shape, dtype=torch.float64)
    for row, count in enumerate(counts):
        for head in range(q.shape[1]):
            k, v = (part[row, head, :count].double() for part in (keys, values))
            weights = torch.exp(k @ q[row, head].double() / math.sqrt(q.shape[2]))
            out[row, head] = weights @ v / weights.sum()
    return out


@pytest.mark.parametrize(
    ("grid", "size", "base"),
    [
        (1, 4, 10.0),
        (3, 12, 100.0),
        (4, 16, 10000.0),
        (16, 64, 10000.0),
        (24, 64, 10000.0),
        (24, 100, 10000.0),
    ],
)
def test_the_rotary_table_is_the_formula_and_the_class_is_zero(grid: int, size: int, base: float):
    table = rotary_table(grid, size, base, torch.device("cpu"))
    assert table.shape == (1 + grid * grid, size // 2, 2)
    assert not table[0].any()
    for item in range(grid * grid):
        for i in range(size // 4):
            frequency = base ** (-4 * i / size)
            for place, angle in (
                (i, item // grid * frequency),
                (size // 4 + i, item % grid * frequency),
            ):
                assert table[1 + item, place].tolist() == pytest.approx(
                    [math.cos(angle), math.sin(angle)], abs=2e-6
                )


def test_turns_are_products_of_complex_numbers():
    x, turns = torch.randn(3, 5, 12), torch.randn(5, 6, 2)
    want = torch.view_as_complex(x.view(3, 5, 6, 2)) * torch.view_as_complex(turns)
    torch.testing.assert_close(rotate(x, turns), torch.view_as_real(want).flatten(-2))
    assert rotate(x.bfloat16(), turns).dtype == torch.float32


def test_a_score_of_two_turned_items_depends_on_how_far_apart_they_are():
    q, k = torch.randn(2, 16)
    table = rotary_table(6, 16, 10000.0, torch.device("cpu"))[1:].view(6, 6, 8, 2)
    scores = [
        rotate(q, table[row, column]) @ rotate(k, table[row + 2, column + 1])
        for row, column in ((0, 0), (3, 0), (1, 4), (3, 4))
    ]
    torch.testing.assert_close(torch.stack(scores), scores[0].expand(4), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("length", [1, 2, 7, 40])
def test_attention_over_a_sequence_is_that_of_each_item(length: int):
    q, k, v = torch.randn(3, 2, 3, length, 20)
    want = torch.stack([twin(q[:, :, t], k, v, [t + 1] * 2) for t in range(length)], 2)
    torch.testing.assert_close(attend(q, k, v).double(), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("heads", "size", "items_", "counts", "filled"),
    [
        (1, 4, 17, [1], 1),
        (3, 12, 50, [1, 17, 50], 50),
        (7, 64, 257, [33, 32, 31, 1], 40),
        (2, 20, 257, [1, 257], 257),
        (5, 128, 100, [64, 65, 66], 100),
        (1, 256, 33, [33, 2], 33),
    ],
)
def test_one_item_attends_to_its_row_alone(
    heads: int, size: int, items_: int, counts: list[int], filled: int, dtype: torch.dtype
):
    room = capacity(items_)
    q, keys, values = items(len(counts), heads, room, size, dtype)
    read = reach(filled, room, size)
    for part in (keys, values):
        part[:, :, read:] = torch.nan  # what nobody has is not read
    got = attend_one(q, keys, values, torch.tensor(counts), filled)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), twin(q, keys, values, counts), atol=1e-5, rtol=1e-5)


def test_large_scores_do_not_overflow():
    q, keys, values = items(2, 1, BLOCK, 8)
    got = attend_one(q * 1000, keys, values, torch.tensor([5, BLOCK]), BLOCK)
    largest = (keys[:, 0] @ q[:, 0, :, None]).squeeze(-1)
    want = torch.stack([values[0, 0, largest[0, :5].argmax()], values[1, 0, largest[1].argmax()]])
    torch.testing.assert_close(got[:, 0], want)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_bits_do_not_depend_on_others(data: st.DataObject):
    size, heads = data.draw(st.sampled_from([4, 12, 16, 20, 64])), data.draw(st.integers(1, 7))
    room = capacity(data.draw(st.integers(1, 300)))
    q, keys, values = items(8, heads, room, size)
    counts = torch.tensor(data.draw(st.lists(st.integers(1, room), min_size=8, max_size=8)))
    together = attend_one(q, keys, values, counts, room)
    rows = data.draw(st.lists(st.integers(0, 7), min_size=1, max_size=8, unique=True))
    filled = data.draw(st.integers(int(counts[rows].max()), room))
    assert torch.equal(
        attend_one(q[rows], keys[rows], values[rows], counts[rows], filled), together[rows]
    )


def test_only_what_is_filled_is_read():
    assert [capacity(n) for n in (1, BLOCK, BLOCK + 1)] == [BLOCK, BLOCK, 2 * BLOCK]
    assert [reach(n, 8 * BLOCK, 64) for n in (1, BLOCK, BLOCK + 1, 8 * BLOCK)] == [
        BLOCK,
        BLOCK,
        2 * BLOCK,
        8 * BLOCK,
    ]
    assert reach(1, 8 * BLOCK, 8) == 2 * BLOCK, "small heads, small products"
    assert reach(1, BLOCK, 8) == BLOCK


def test_where_bits_would_depend_on_it_everything_is_read(
    monkeypatch: pytest.MonkeyPatch, asked_anew: None
):
    right = attention.attend_reached

    def by_length(q: Tensor, keys: Tensor, values: Tensor, hidden: Tensor) -> Tensor:
        return right(q, keys, values, hidden) * (1 + 1e-6 * keys.shape[1])

    def by_company(q: Tensor, keys: Tensor, values: Tensor, hidden: Tensor) -> Tensor:
        return right(q, keys, values, hidden) * (1 + 1e-6 * len(q))

    for wrong in (by_length, by_company):
        attention._can_reach.cache_clear()
        monkeypatch.setattr(attention, "attend_reached", wrong)
        assert reach(1, 8 * BLOCK, 64) == 8 * BLOCK
