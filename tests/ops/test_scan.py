"""The chunked scan, the recurrence and the single step against one formula in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aim.ops.scan import scan_chunked, scan_recurrent, state_step

NAMES = ("x", "dt", "A", "B", "C", "D")


def inputs(
    rows: int, length: int, heads: int = 3, channels: int = 5, size: int = 7, seed: int = 0
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "x": normal(rows, length, heads, channels),
        "dt": torch.nn.functional.softplus(normal(rows, length, heads)),
        "A": -torch.exp(normal(heads)),
        "B": normal(rows, length, size),
        "C": normal(rows, length, size),
        "D": normal(heads),
    }


def oracle(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """The definition as a sum over the past, loop by loop, in float64; y (B, T, H, P), state (B, H,
    P, N).
    """
    x, dt, A, B, C, D = (t.double().numpy() for t in (x, dt, A, B, C, D))
    rows, length, heads, channels = x.shape
    y = np.zeros(x.shape)
    state = np.zeros((rows, heads, channels, B.shape[2]))
    for b in range(rows):
        for h in range(heads):
            for t in range(length):
                y[b, t, h] = D[h] * x[b, t, h]
                for s in range(t + 1):
                    decay = np.exp(A[h] * dt[b, s + 1 : t + 1, h].sum())
                    y[b, t, h] += (C[b, t] @ B[b, s]) * decay * dt[b, s, h] * x[b, s, h]
            for s in range(length):
                decay = np.exp(A[h] * dt[b, s + 1 :, h].sum())
                state[b, h] += decay * dt[b, s, h] * np.outer(x[b, s, h], B[b, s])
    return y, state


def assert_close(got: Tensor, want: np.ndarray, tolerance: float = 1e-5):
    assert got.shape == want.shape
    assert np.abs(got.double().numpy() - want).max() <= tolerance * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("rows, length", [(1, 1), (2, 2), (3, 7), (1, 16), (2, 19)])
def test_recurrence_equals_the_sum_over_the_past(rows: int, length: int):
    given_ = inputs(rows, length)
    y, state = scan_recurrent(**given_)
    want_y, want_state = oracle(**given_)
    assert_close(y, want_y)
    assert_close(state, want_state)


@pytest.mark.parametrize("chunk", [1, 2, 5, 8, 64])
@pytest.mark.parametrize("rows, length", [(1, 1), (2, 2), (1, 5), (3, 7), (1, 16), (2, 19)])
def test_chunks_equal_the_sum_over_the_past(rows: int, length: int, chunk: int):
    given_ = inputs(rows, length, seed=length)
    y, state = scan_chunked(**given_, chunk=chunk)
    want_y, want_state = oracle(**given_)
    assert_close(y, want_y)
    assert_close(state, want_state)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 150),
    st.integers(1, 70),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 17),
    st.integers(0, 99),
)
def test_chunks_equal_the_recurrence(
    rows: int, length: int, chunk: int, heads: int, channels: int, size: int, seed: int
):
    given_ = inputs(rows, length, heads, channels, size, seed)
    y, state = scan_chunked(**given_, chunk=chunk)
    want_y, want_state = scan_recurrent(**given_)
    assert_close(y, want_y.double().numpy(), 3e-5)
    assert_close(state, want_state.double().numpy(), 3e-5)


def test_the_state_is_optional_and_changes_nothing():
    given_ = inputs(2, 37)
    y, state = scan_chunked(**given_, chunk=8, need_state=False)
    assert state is None
    assert_close(y, scan_chunked(**given_, chunk=8)[0].double().numpy(), 1e-6)


def test_strong_decay_does_not_overflow():
    """Decays over a whole chunk underflow to 0; their inverse, which a careless form would need, is
    infinite.
    """
    given_ = inputs(1, 64)
    given_["dt"] = given_["dt"] * 100
    y, state = scan_chunked(**given_, chunk=64)
    want_y, want_state = scan_recurrent(**given_)
    assert y.isfinite().all() and state.isfinite().all()
    assert_close(y, want_y.double().numpy())
    assert_close(state, want_state.double().numpy())


def test_steps_continue_a_chunked_scan():
    given_ = inputs(2, 23)
    whole, last = scan_recurrent(**given_)
    head = {k: v[:, :14] if k not in ("A", "D") else v for k, v in given_.items()}
    _, state = scan_chunked(**head, chunk=5)
    for t in range(14, 23):
        now = [given_[k] if k in ("A", "D") else given_[k][:, t] for k in NAMES]
        y = state_step(state, *now)
        assert_close(y, whole[:, t].double().numpy())
    assert_close(state, last.double().numpy())


def test_step_changes_the_state_in_place_and_nothing_else():
    given_ = inputs(2, 1)
    now = [given_[k] if k in ("A", "D") else given_[k][:, 0] for k in NAMES]
    before = [t.clone() for t in now]
    pool = torch.randn(4, 3, 5, 7)
    kept = pool[2:].clone()
    state_step(pool[:2], *now)
    assert torch.equal(pool[2:], kept)
    assert all(torch.equal(a, b) for a, b in zip(now, before, strict=True))


def test_where_dt_is_zero_the_state_stays():
    given_ = inputs(2, 1)
    now = {k: given_[k] if k in ("A", "D") else given_[k][:, 0] for k in NAMES}
    now["dt"] = now["dt"].clone()
    now["dt"][1] = 0
    state = torch.randn(2, 3, 5, 7)
    before = state.clone()
    state_step(state, **now)
    assert torch.equal(state[1], before[1]) and not torch.equal(state[0], before[0])


def test_gradients_agree():
    given_ = inputs(1, 21)
    weight = torch.randn(1, 21, 3, 5, generator=torch.Generator().manual_seed(9))
    grads = []
    for scan in (lambda **k: scan_chunked(**k, chunk=8)[0], by_einsum):
        leaves = {k: v.clone().requires_grad_() for k, v in given_.items()}
        (scan(**leaves) * weight).sum().backward()
        grads.append([leaves[k].grad for k in NAMES])
    for name, chunked, plain in zip(NAMES, *grads, strict=True):
        assert chunked is not None, name
        assert_close(chunked, plain.double().numpy(), 3e-5)


def by_einsum(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The recurrence without in-place updates, for autograd."""
    state = x.new_zeros(x.shape[0], x.shape[2], x.shape[3], B.shape[2])
    out = []
    for t in range(x.shape[1]):
        added = torch.einsum("bh,bhp,bn->bhpn", dt[:, t], x[:, t], B[:, t])
        state = state * torch.exp(dt[:, t] * A)[..., None, None] + added
        out.append(torch.einsum("bhpn,bn->bhp", state, C[:, t]) + x[:, t] * D[:, None])
    return torch.stack(out, 1)


def test_half_precision_stays_near():
    given_ = inputs(2, 50)
    half = {k: v.bfloat16() if k in "xBC" else v for k, v in given_.items()}
    y, state = scan_chunked(**half, chunk=16)
    want_y, want_state = scan_recurrent(**{k: v.float() for k, v in half.items()})
    assert y.dtype == torch.bfloat16 and state.dtype == torch.float32
    assert_close(y, want_y.double().numpy(), 2e-2)
    assert_close(state, want_state.double().numpy(), 2e-2)
