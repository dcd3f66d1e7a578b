"""The fused step equals AiM's, at every age of a row: on a CPU in Triton's interpreter at the
smallest sizes, on a GPU at real ones.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from aim.config import MODELS
from aim.errors import InvalidInput
from aim.models.aim.model import AiM
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
from tests.tiny import random_model

pytest.importorskip("triton", reason="Triton is not installed")
from aim.models.aim.gpu import GPUAiM
from aim.models.aim.state import HistoryState

# the interpreter computes with NaN what it then masks
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
SMALL = {"d_model": 16, "headdim": 16, "vocab_size": 16, "num_tokens": 36}
BFLOAT16 = 3e-2  # of logits; the interpreter rounds bfloat16 towards zero


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad(), torch.device(DEVICE):
        yield


def pair(dtype: torch.dtype = torch.float32, **changes: object) -> tuple[AiM, GPUAiM]:
    """An eager model and the fused one on the same weights."""
    eager = random_model(**{**SMALL, **changes}).to_dtype(dtype)
    return eager, GPUAiM(eager)


def poisoned(model: GPUAiM, slots: int, first: int = 0, window: int = 1) -> HistoryState:
    """A state in which rows were before, with a history of ``first`` items if given."""
    state = model.new_state(slots, window)
    if first:
        held = max(first, 2 * state.spare)
        state = dataclasses.replace(
            state,
            items=state.items[:, :, :, :held].contiguous(),
            keys=state.keys[:, :, :held].contiguous(),
            decay=state.decay[..., :held].contiguous(),
        )
    for part in state.windows():
        part.fill_(float("nan"))
    state.origin.fill_(3)
    return state


def follow(
    eager: AiM,
    fast: GPUAiM,
    labels: Tensor,
    ages: list[int],
    steps: int,
    first: int,
    prefilled: dict[int, int],
) -> float:
    """The largest distance of fused logits from eager ones over some steps, row i at position
    ``ages[i]`` first (idle below 0).

    ``prefilled``: how many codes those rows start behind. The history holds ``first`` items.
    """
    rows = len(ages)
    codes, state, memory = codes_of(fast, rows), poisoned(fast, rows, first), eager.new_state(rows)
    cond, modulations = fast.condition(labels), eager.condition(labels)
    worst = 0.0
    for row, count in prefilled.items():
        slot = torch.tensor([row])
        given = codes[row : row + 1, :count], labels[row : row + 1]
        logits = fast.prefill(*given, state, slot)
        worst = max(worst, distance(logits, eager.prefill(*given, memory, slot)))
    for step in range(steps):
        positions = torch.tensor(ages) + step
        positions = torch.where(positions < fast.config.num_tokens, positions, -1).clamp(min=-1)
        busy = positions >= 0
        got = fast.step(at(codes, positions), positions, cond, state)
        want = eager.step(at(codes, positions), positions, modulations, memory)
        worst = max(worst, distance(got[busy], want[busy]))
    return worst


def test_float32_over_two_folds_with_rows_of_two_ages():
    eager, fast = pair(position_offset=1)
    labels = torch.tensor([1, 5])
    assert follow(eager, fast, labels, ages=[0, -3], steps=37, first=16, prefilled={}) < FLOAT32


def test_float32_over_a_fold_after_prefill():
    eager, fast = pair(headdim=32)
    labels = torch.tensor([1, 5, 0])
    assert (
        follow(eager, fast, labels, ages=[13, 14, -40], steps=6, first=16, prefilled={0: 12, 1: 13})
        < FLOAT32
    )
    far = {0: 1, 1: 2}  # the state is 14 items old; as many more, and it is folded
    assert (
        follow(eager, fast, labels, ages=[2, 3, -40], steps=18, first=16, prefilled=far) < FLOAT32
    )


@pytest.mark.parametrize("rows", [2, 3], ids=["few", "many"])
def test_bfloat16_over_a_fold_with_rows_of_different_ages(rows: int):
    eager, fast = pair(torch.bfloat16, headdim=32)
    labels = torch.tensor([1, 5, 0])[:rows]
    assert (
        follow(eager, fast, labels, ages=[0, 4, -40][:rows], steps=18, first=16, prefilled={1: 3})
        < BFLOAT16
    )


@pytest.mark.parametrize(
    ("dtype", "width", "far"),
    [(torch.float32, 6, FLOAT32), (torch.bfloat16, 3, BFLOAT16)],
)
def test_what_is_kept_of_a_pass_is_the_steps(dtype: torch.dtype, width: int, far: float):
    """Over two folds."""
    eager, fast = pair(dtype, headdim=32)
    state = poisoned(fast, 2, 16, width)
    assert_windows_are_the_steps(eager, fast, state, width, far)


@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_prefill_equals_forward_and_leaves_the_state_of_the_steps(length: int):
    eager, fast = pair(headdim=32)
    codes, labels, slots = codes_of(fast, 2), torch.tensor([1, 5]), torch.tensor([4, 1])
    cond, state = torch.randn(5, fast.condition(labels).shape[1]), poisoned(fast, 5)
    cond[slots] = fast.condition(labels)
    before = [part.clone() for part in state]
    want = eager(codes[:, :-1], labels)
    got = fast.prefill(codes[:, :length], labels, state, slots)
    assert distance(got, want[:, : length + 1]) < FLOAT32
    for i in range(length + 1, length + 3):
        got = step_at(fast, slots, codes[:, i - 1], torch.full((2,), i), cond, state)
        assert distance(got, want[:, i]) < FLOAT32
    for part, old in zip(state.windows(), before, strict=False):
        assert torch.equal(part[:, [0, 2, 3]].nan_to_num(), old[:, [0, 2, 3]].nan_to_num())


def test_prefill_refuses_a_whole_image():
    _, fast = pair(num_tokens=16)
    with pytest.raises(InvalidInput, match=r"16 codes.*fewer than num_tokens = 16"):
        fast.prefill(
            torch.zeros(1, 16, dtype=torch.long),
            torch.tensor([0]),
            fast.new_state(1),
            torch.tensor([0]),
        )


def test_an_idle_row_writes_nothing():
    _, fast = pair(headdim=32)
    cond, state = fast.condition(torch.arange(4)), fast.new_state(4)
    for part in state.windows():
        part.normal_()
    before = HistoryState(*(part.clone() for part in state))
    fast.step(torch.tensor([1, 2, 3, 4]), torch.tensor([5, -1, 0, -1]), cond, state)
    for part, old in zip(state.windows(), before.windows(), strict=True):
        assert torch.equal(part[:, [1, 3]], old[:, [1, 3]])
    for part, old in zip(state.windows()[:4], before.windows()[:4], strict=True):
        assert (part != old)[:, [0, 2]].flatten(2).any(-1).all()


def test_slots_are_copied():
    _, fast = pair()
    state = fast.new_state(5)
    for part in state.windows():
        part.normal_()
    state.origin.copy_(torch.arange(5) * 7)
    before = HistoryState(*(part.clone() for part in state))
    assert state.slots == 5
    state.copy(torch.tensor([4, 0]), torch.tensor([0, 4]))  # an exchange
    assert state.origin.tolist() == [28, 7, 14, 21, 0]
    for part, whole in zip(state.windows(), before.windows(), strict=True):
        assert torch.equal(part, whole[:, [4, 1, 2, 3, 0]])


def test_copied_slots_go_on_like_their_source():
    _, fast = pair(headdim=32)
    assert_copies_go_on(fast, poisoned(fast, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_condition_is_the_models_with_gains_and_shifts_that_are_ready(dtype: torch.dtype):
    eager, fast = pair(dtype, d_model=32)
    eager.layers[1].norm.weight.normal_()
    eager.final_layer.norm_final.weight.normal_()
    fast = GPUAiM(eager)
    labels, width = torch.tensor([1, 5, 0]), eager.config.d_model
    cond, want = fast.condition(labels), eager.condition(labels)
    assert cond.dtype == dtype
    cond = cond.float()
    assert torch.equal(cond, fast.condition(eager.cls_embed.embedding_table(labels)).float())
    parts, offsets = cond[:, : 9 * width].unflatten(1, (9, width)), cond[:, 9 * width :]
    assert torch.equal(parts[:, [0, 1, 3, 5, 6, 8]], want[:, [0, 1, 3, 5, 6, 8]].to(dtype).float())
    near = {} if dtype == torch.float32 else {"rtol": 2**-8, "atol": 1e-6}
    norms = (eager.final_layer.norm_final, eager.layers[0].norm, eager.layers[1].norm)
    for column, norm in zip((2, 4, 7), norms, strict=True):
        torch.testing.assert_close(parts[:, column], (1 + want[:, column]) * norm.weight, **near)
    if dtype == torch.float32:
        assert offsets.shape[1] == 0
    else:
        made = [
            want[:, 3 + 3 * i] @ layer.mixer.in_proj.weight.float().T
            for i, layer in enumerate(eager.layers)
        ]
        assert distance(offsets, torch.cat(made, 1)) < 1e-2


def test_a_row_has_the_same_float32_bits_in_any_company():
    _, fast = pair(headdim=32)
    assert_same_bits_in_any_company(fast, lambda: poisoned(fast, 4), steps=3)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"headdim": 8}, "headdim 8,"),
        ({"d_model": 48, "headdim": 48}, "headdim 48,"),
        ({"d_state": 24}, "d_state 24,"),
        ({"d_model": 24}, "24$"),
    ],
)
def test_sizes_that_the_kernels_do_not_take_are_refused(changes: dict[str, int], named: str):
    with pytest.raises(InvalidInput, match=f"not .*{named}"):
        pair(**changes)


@pytest.mark.parametrize(
    ("tokens", "few", "many"), [(7, 16, 16), (40, 64, 64), (96, 64, 128), (256, 64, 128)]
)
def test_the_history_is_a_power_of_two_for_any_number_of_codes(tokens: int, few: int, many: int):
    _, fast = pair(num_tokens=tokens)
    assert (fast.new_state(64).first, fast.new_state(65).first) == (few, many)


def test_traffic_of_aim_xl():
    with torch.device("meta"):
        fast = GPUAiM(AiM(MODELS["aim-xl"].config).to_dtype(torch.bfloat16))
    # bytes: dt x, B and the decay of an item; h
    item, base = 2 * (3072 + 128) + 4 * 48, 2 * 3072 * 128
    ring = 256 * 5 * 2 * (3072 + 2 * 128)  # four items read, one written, at every position
    # 64 items without h and 12 times 16 behind it, read or written; all of them once more when
    # folded
    few = (64 * 65 // 2 + 12 * 16 * 17 // 2 + 256) * item + ring + (192 + 1 + 12 * 2) * base
    assert fast.traffic(2) == (1_454_112_768, 2 * 48 * few // 256)
    assert fast.traffic(2)[1] == 76_999_680
    many = (128 * 129 // 2 + 8 * 16 * 17 // 2 + 256) * item + ring + (128 + 1 + 8 * 2) * base
    assert fast.traffic(128) == (1_454_112_768, 128 * 48 * many // 256)


@pytest.mark.skipif(
    DEVICE == "cuda", reason="tests/engine/test_gpu.py does this with captured steps"
)
def test_an_engine_draws_the_codes_of_the_eager_model():
    assert_draws_the_same(*pair(num_tokens=9, headdim=32))


@pytest.fixture(scope="module")
def aim_b() -> AiM:
    """aim-b with random weights in float32 that bfloat16 holds exactly, and in which the mixers
    weigh in on the logits.
    """
    torch.manual_seed(0)
    model = AiM(MODELS["aim-b"].config).eval().requires_grad_(False)
    gains = {"word_embeddings": 4.0, "embedding_table": 10.0, "adaLN": 3.0}
    rounded = copy.deepcopy(model)
    for name, weight in rounded.named_parameters():
        weight.mul_(next((gain for part, gain in gains.items() if part in name), 1.0))
    model.load_state_dict(rounded.to_dtype(torch.bfloat16).state_dict())
    return model.to("cuda")


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("dtype", "far"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=["float32", "bfloat16"]
)
@pytest.mark.usefixtures("exact_float32")
@pytest.mark.parametrize("rows", [2, 8, 96])
def test_aim_b_over_150_positions_with_rows_of_different_ages(
    aim_b: AiM, rows: int, dtype: torch.dtype, far: float
):
    fast = GPUAiM(copy.deepcopy(aim_b).to_dtype(dtype))
    codes = codes_of(fast, rows)
    labels = torch.arange(rows, device="cuda") * 37 % 1001
    cond, modulations = fast.condition(labels), aim_b.condition(labels)
    state, memory = poisoned(fast, rows), aim_b.new_state(rows)
    starts = torch.arange(rows, device="cuda") * 7 % 41  # no two neighbours come to a fold together
    worst = torch.zeros(rows, device="cuda")
    for step in range(150):
        positions = (step - starts).clamp(min=-1)
        last = at(codes, positions)
        got, want = (
            fast.step(last, positions, cond, state),
            aim_b.step(last, positions, modulations, memory),
        )
        error = (got - want).norm(dim=1) / want.norm(dim=1)
        worst = torch.where((positions >= 0) & ~(error <= worst), error, worst)  # NaN stays
    assert worst.max().item() < far, worst.tolist()
