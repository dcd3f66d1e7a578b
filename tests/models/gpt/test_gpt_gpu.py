"""The Transformer's fused step equals its eager one at every age: in Triton's interpreter at small
sizes, on a GPU at real ones.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch

from aim.config import MODELS
from aim.errors import InvalidInput
from aim.models.gpt.model import GPT
from tests.models.decoders import step_at
from tests.models.fused import (
    DEVICE,
    FLOAT32,
    assert_copies_go_on,
    assert_draws_the_same,
    assert_same_bits_in_any_company,
    assert_windows_are_the_steps,
    at,
    codes_of,
    distance,
)
from tests.tiny import random_gpt

pytest.importorskip("triton", reason="Triton is not installed")
from aim.models.gpt import gpu as gpt_gpu
from aim.models.gpt.cache import CacheState
from aim.models.gpt.gpu import GPUGPT, SOME

# the interpreter computes with NaN what it then masks
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
BFLOAT16 = 5e-2  # of logits, between two ways of rounding; the interpreter rounds towards zero
SMALL = {"d_model": 32, "n_head": 2, "vocab_size": 16, "multiple_of": 16}
DTYPES = pytest.mark.parametrize(
    ("dtype", "far"),
    [(torch.float32, FLOAT32), (torch.bfloat16, BFLOAT16)],
    ids=["float32", "bfloat16"],
)


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad(), torch.device(DEVICE):
        yield


def pair(dtype: torch.dtype = torch.float32, **changes: object) -> tuple[GPT, GPUGPT]:
    """An eager model and the fused one on the same weights."""
    eager = random_gpt(**{**SMALL, **changes}).to_dtype(dtype)
    return eager, GPUGPT(eager)


def poisoned(model: GPUGPT, slots: int) -> CacheState:
    """A cache in which rows were before."""
    state = model.new_state(slots)
    for part in state:
        part.fill_(float("nan"))
    return state


@DTYPES
@pytest.mark.parametrize(
    ("rows", "most"), [(1, SOME), (2, SOME), (3, SOME), (3, 2)], ids=["one", "few", "some", "many"]
)
def test_steps_of_rows_of_different_ages(
    monkeypatch: pytest.MonkeyPatch, rows: int, most: int, dtype: torch.dtype, far: float
):
    monkeypatch.setattr(gpt_gpu, "SOME", most)
    eager, fast = pair(dtype, num_tokens=9)
    codes, labels = codes_of(fast, rows), torch.arange(rows) % 6
    cond, state, memory = fast.condition(labels), poisoned(fast, rows), eager.new_state(rows)
    for step in range(9 + min(rows, 3) - 1):
        positions = step - torch.arange(rows) % 3
        positions = torch.where(positions < fast.config.num_tokens, positions, -1)
        busy = positions >= 0
        got, want = (
            fast.step(at(codes, positions), positions, cond, state),
            eager.step(at(codes, positions), positions, cond, memory),
        )
        assert distance(got[busy], want[busy]) < far
    assert not state.arrived.any()


@pytest.mark.parametrize(
    ("width", "most", "dtype", "far"),
    [
        (2, SOME, torch.bfloat16, BFLOAT16),
        (16, SOME, torch.bfloat16, BFLOAT16),
        (5, 2, torch.float32, FLOAT32),
    ],
)
def test_what_is_kept_of_a_pass_is_the_steps(
    monkeypatch: pytest.MonkeyPatch, width: int, most: int, dtype: torch.dtype, far: float
):
    monkeypatch.setattr(gpt_gpu, "SOME", most)
    eager, fast = pair(dtype)
    state = poisoned(fast, 2)
    assert_windows_are_the_steps(eager, fast, state, width, far)
    assert not state.arrived.any()


@pytest.mark.parametrize("length", [0, 1, 7])
def test_prefill_equals_forward_and_leaves_the_cache_of_the_steps(length: int):
    eager, fast = pair()
    codes, labels, slots = codes_of(fast, 2), torch.tensor([1, 5]), torch.tensor([4, 1])
    cond, state = torch.randn(5, fast.config.d_model), poisoned(fast, 5)
    cond[slots] = fast.condition(labels)
    want = eager(codes[:, :-1], labels)
    got = fast.prefill(codes[:, :length], labels, state, slots)
    assert distance(got, want[:, : length + 1]) < FLOAT32
    for i in range(length + 1, length + 3):
        got = step_at(fast, slots, codes[:, i - 1], torch.full((2,), i), cond, state)
        assert distance(got, want[:, i]) < FLOAT32
    assert state.keys[:, [0, 2, 3]].isnan().all()


def test_an_idle_row_writes_nothing():
    _, fast = pair()
    cond, state = fast.condition(torch.arange(4)), fast.new_state(4)
    for part in state:
        part.normal_()
    before = [part.clone() for part in state]
    fast.step(torch.tensor([1, 2, 3, 4]), torch.tensor([5, -1, 0, -1]), cond, state)
    for part, old in zip(state, before, strict=True):
        changed = (part != old).flatten(2).any(-1)
        assert not changed[:, [1, 3]].any()
        assert changed[:, [0, 2]].all()


def test_copied_slots_go_on_like_their_source():
    _, fast = pair()
    assert_copies_go_on(fast, poisoned(fast, 4))


def test_a_row_has_the_same_float32_bits_in_any_company():
    _, fast = pair()
    assert_same_bits_in_any_company(fast, lambda: poisoned(fast, 4), steps=4)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"n_head": 4}, "head_dim 8,"),
        ({"d_model": 48, "n_head": 1}, "head_dim 48,"),
        ({"multiple_of": 4}, "d_ffn 88$"),
    ],
)
def test_sizes_that_the_kernels_do_not_take_are_refused(changes: dict[str, int], named: str):
    with pytest.raises(InvalidInput, match=f"not .*{named}"):
        pair(**changes)


def test_traffic_of_gpt_xl():
    with torch.device("meta"):
        model = GPT(MODELS["gpt-xl"].config).to_dtype(torch.bfloat16)
    read = [
        weight
        for name, weight in model.named_parameters()
        if weight.dim() == 2 and "embed" not in name
    ]
    item = 36 * 2 * 1280 * 2  # bytes: a key and a value of every layer
    # at position p, p items are read and one is written
    assert GPUGPT(model).traffic(32) == (
        2 * sum(weight.numel() for weight in read),
        32 * item * sum(p + 1 for p in range(256)) // 256,
    )


@pytest.mark.skipif(
    DEVICE == "cuda", reason="tests/engine/test_gpu.py does this with captured steps"
)
def test_an_engine_draws_the_codes_of_the_eager_model():
    assert_draws_the_same(*pair())


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "far"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=["float32", "bfloat16"]
)
@pytest.mark.usefixtures("exact_float32")
@pytest.mark.parametrize("rows", [2, 32, 96])
def test_gpt_b_over_a_whole_picture_with_rows_of_different_ages(
    rows: int, dtype: torch.dtype, far: float
):
    torch.manual_seed(0)
    eager = GPT(MODELS["gpt-b"].config).eval().requires_grad_(False)
    for name, weight in eager.named_parameters():
        weight.mul_(20.0 if "embed" in name else 2.0 if "wqkv" in name else 1.0)
    fast = GPUGPT(copy.deepcopy(eager).to_dtype(dtype))
    codes, labels = codes_of(fast, rows), torch.arange(rows) * 37 % 1001
    given, cond, state, memory = (
        eager.condition(labels),
        fast.condition(labels),
        poisoned(fast, rows),
        eager.new_state(rows),
    )
    starts, worst = torch.arange(rows) * 7 % 41, torch.zeros(rows)
    for step in range(256):
        positions = (step - starts).clamp(min=-1)
        last = at(codes, positions)
        got, want = (
            fast.step(last, positions, cond, state),
            eager.step(last, positions, given, memory),
        )
        error = (got - want).norm(dim=1) / want.norm(dim=1)
        worst = torch.where((positions >= 0) & ~(error <= worst), error, worst)  # NaN stays
    assert worst.max().item() < far, worst.tolist()
