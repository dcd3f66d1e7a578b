"""The noise is what its definition in unsigned 32-bit integers says, and looks random in every
direction.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from aim.ops import draw

U32 = np.uint32


def mix(x: np.ndarray) -> np.ndarray:
    x = x ^ (x >> U32(16))
    x = x * U32(0x7FEB352D)
    x = x ^ (x >> U32(15))
    x = x * U32(0x846CA68B)
    return x ^ (x >> U32(16))


def reference(seed: int, position: int, codes: int) -> np.ndarray:
    """The definition in true uint32 arithmetic, which wraps; (codes,) float32."""
    row = mix(np.array([(seed + position * 0x9E3779B9 + 0x85EBCA6B) % 2**32], U32))
    hashed = mix(row ^ mix(np.arange(codes, dtype=U32) + U32(0xC2B2AE35)))
    u = (hashed.astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32)
    return np.minimum(u, np.float32(1 - 2**-24))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(-1, 5000)), min_size=1, max_size=5),
    st.sampled_from([1, 2, 37, 2048]),
)
def test_equals_its_definition_bit_for_bit(rows: list[tuple[int, int]], codes: int):
    seeds, positions = torch.tensor(rows).T
    got = draw.uniform(seeds, positions, codes)
    assert got.shape == (len(rows), codes) and got.dtype == torch.float32
    for row, (seed, position) in zip(got, rows, strict=True):
        assert np.array_equal(row.numpy(), reference(seed, position, codes))


def test_known_values():
    """Pinned: a change of the hash would change every picture that a seed stands for."""
    got = draw.uniform(torch.tensor([0, 1]), torch.tensor([0, 7]), 3)
    assert got.tolist() == [
        [0.5660967230796814, 0.9693787693977356, 0.00857164803892374],
        [0.5071630477905273, 0.31916892528533936, 0.2942332327365875],
    ]


def test_arguments_are_left_alone():
    seeds, positions = torch.tensor([3, 4]), torch.tensor([5, 6])
    draw.gumbel(seeds, positions, 9)
    assert seeds.tolist() == [3, 4] and positions.tolist() == [5, 6]


@pytest.mark.parametrize(
    "hashed", [0, 1, 2**23, 2**24 - 1, 2**31, 2**32 - 257, 2**32 - 129, 2**32 - 1]
)
def test_extreme_hashes_stay_inside_the_open_interval(monkeypatch: pytest.MonkeyPatch, hashed: int):
    monkeypatch.setattr(draw, "_mix", lambda x: torch.full_like(x, hashed))
    # else the cache would keep this hash
    monkeypatch.setattr(draw, "_mixed_codes", draw._mixed_codes.__wrapped__)
    one = torch.zeros(1, dtype=torch.int64)
    u = draw.uniform(one, one, 4)
    g = draw.gumbel(one, one, 4)
    assert ((u > 0) & (u < 1)).all()
    assert g.isfinite().all()
    np.testing.assert_allclose(g.numpy(), -np.log(-np.log1p(-u.double().numpy())), rtol=1e-6)


def test_nearby_seeds_never_share_a_row():
    strides = [k * draw.STRIDE % 2**32 for k in range(1, 2048)]
    assert min(min(s, 2**32 - s) for s in strides) > 1_000_000
    pairs = torch.cartesian_prod(torch.arange(200), torch.arange(256))
    noise = draw.uniform(pairs[:, 0], pairs[:, 1], 2)
    assert len(torch.unique(noise, dim=0)) == len(pairs)


@pytest.mark.parametrize("codes", [1, 2047, 2048, 2049, 5000])
def test_gumbel_is_its_formula(codes: int):
    seeds = torch.arange(3)
    u = draw.uniform(seeds, seeds, codes).double().numpy()
    np.testing.assert_allclose(
        draw.gumbel(seeds, seeds, codes).numpy(), -np.log(-np.log1p(-u)), rtol=1e-6, atol=1e-6
    )


def test_noise_has_its_distribution():
    seeds = torch.arange(100)
    u = draw.uniform(seeds, torch.full_like(seeds, 9), 2048).double().numpy().ravel()
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    g = draw.gumbel(seeds, torch.full_like(seeds, 9), 2048).double().numpy().ravel()
    assert stats.kstest(g, "gumbel_r").pvalue > 1e-3


@pytest.mark.parametrize("axis", ["seed", "position", "code"])
@pytest.mark.parametrize("lag", [1, 2, 16, 256])
def test_neighbours_are_uncorrelated(axis: str, lag: int):
    base = torch.arange(4000)
    same = torch.full_like(base, 5)
    if axis == "code":
        u = draw.uniform(torch.arange(8), torch.arange(8), 4000).T
        a, b = u[:-lag].flatten(), u[lag:].flatten()
    else:
        seeds, positions = (base, same) if axis == "seed" else (same, base)
        moved = base + lag
        a = draw.uniform(seeds, positions, 8).flatten()
        b = draw.uniform(*((moved, same) if axis == "seed" else (same, moved)), 8).flatten()
    assert abs(stats.pearsonr(a.double().numpy(), b.double().numpy()).statistic) < 5 / len(a) ** 0.5
    counts = np.histogram2d(a.numpy(), b.numpy(), bins=8, range=[[0, 1], [0, 1]])[0]
    assert stats.chisquare(counts.ravel()).pvalue > 1e-4


@pytest.mark.parametrize("bit", range(0, 32, 5))
def test_one_bit_of_the_seed_changes_half_of_the_bits(bit: int):
    seeds = torch.arange(500) * 7919
    position = torch.zeros_like(seeds)
    before = (draw.uniform(seeds, position, 64).double() * 2**20).long()
    after = (draw.uniform(seeds ^ (1 << bit), position, 64).double() * 2**20).long()
    flipped = before ^ after
    share = torch.stack([(flipped >> b & 1).double().mean() for b in range(20)])
    assert ((share - 0.5).abs() < 0.02).all()
