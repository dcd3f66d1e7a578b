"""What ``PackedAiM`` promises beyond ``AiM``'s own tests: the same numbers in float32 and in bfloat16, on a CPU alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from aim.checkpoint.tensors import blank
from aim.config import MODELS, SamplingParams
from aim.engine import Engine, Finished, Request
from aim.errors import InvalidInput
from aim.models.aim import AiM
from aim.models.packed import PackedAiM
from tests.tiny import TINY

Make = Callable[..., AiM]


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def played(model: AiM | PackedAiM, rows: int, steps: int) -> Tensor:
    """Logits (R, steps, V) of random codes; row i is the same whatever the number of rows."""
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(model.config.vocab_size, (64, steps), generator=generator)[:rows]
    labels = torch.arange(rows) % (model.config.num_classes + 1)
    cond, state = model.condition(labels), model.new_state(rows)
    return torch.stack([model.step(codes[:, i - 1], torch.full((rows,), i), cond, state) for i in range(steps)], 1)


def apart(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("adaln", [{"adaln_group": False, "num_groups": 1}, {"num_groups": 2}, {"num_groups": 1, "position_offset": 1}])
def test_equals_eager_in_float32(make_model: Make, adaln: dict):
    model = make_model(**adaln)
    assert apart(played(PackedAiM(model), 4, 16), played(model, 4, 16)) < 1e-6


def test_is_as_near_to_float32_as_eager_in_bfloat16(make_model: Make):
    exact, model = make_model(), make_model().to_dtype(torch.bfloat16)
    want = played(exact, 6, 16)
    eager, packed = played(model, 6, 16), played(PackedAiM(model), 6, 16)
    assert packed.dtype == torch.float32
    assert apart(packed, want) < max(1.2 * apart(eager, want), 1e-2)
    codes, slots, prepared = torch.randint(64, (3, 9)), torch.tensor([2, 0, 1]), PackedAiM(model)
    filled, cond = prepared.new_state(3), prepared.condition(slots)
    assert (
        apart(prepared.prefill(codes, cond, filled, slots), model.prefill(codes, model.condition(slots), model.new_state(3), slots)) < 2e-2
    )


@pytest.mark.parametrize(
    "config", [dataclasses.replace(TINY, d_model=128), dataclasses.replace(MODELS["aim-s"].config, n_layer=3)], ids=["tiny", "aim-s"]
)
def test_a_bfloat16_row_has_the_same_bits_in_any_company(config):
    torch.manual_seed(0)
    model = PackedAiM(AiM(config).eval().to_dtype(torch.bfloat16))
    together = played(model, 16, 5)
    for rows in (2, 4, 6, 10):
        assert torch.equal(played(model, rows, 5), together[:rows]), rows


def test_a_poisoned_slot_leaves_its_neighbours_alone(make_model: Make):
    model = PackedAiM(make_model().to_dtype(torch.bfloat16))
    cond, state = model.condition(torch.tensor([1, 2, 3, 4])), model.new_state(4)
    clean = model.new_state(4)
    for part in state:
        part[:, 1] = torch.nan
    codes, positions = torch.tensor([5, 6, 7, 8]), torch.tensor([3, 3, 0, -1])
    got, want = (model.step(codes, positions, cond, s) for s in (state, clean))
    assert torch.equal(got[[0, 2, 3]], want[[0, 2, 3]])
    assert got[1].isnan().all()


def test_an_engine_on_it_draws_what_one_on_the_eager_model_does_alone_and_in_company(make_model: Make):
    eager = make_model()
    params = [SamplingParams(cfg_scale=3.0), SamplingParams(cfg_scale=1.0), SamplingParams(cfg_scale=2.0, top_k=20, top_p=0.9)]
    requests = [Request(i % 5, params[i % 3], seed=i) for i in range(7)]

    def drawn(model: AiM | PackedAiM, most: int) -> dict[int, list[int]]:
        return {e.request_id: e.codes.tolist() for e in Engine(model, most).run(requests) if isinstance(e, Finished)}

    want = drawn(eager, 1)
    assert len(want) == len(requests)
    for most in (1, 2, 5):
        assert drawn(PackedAiM(eager), most) == want


def test_a_model_elsewhere_is_refused():
    with pytest.raises(InvalidInput, match="on meta"):
        PackedAiM(blank(lambda: AiM(TINY)))
