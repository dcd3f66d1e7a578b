"""What the packed steps promise beyond what every step does: the same numbers in float32 and in
bfloat16, on a CPU alone.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from aim.checkpoint.weights import blank
from aim.config import MODELS, PriorConfig, SamplingParams
from aim.engine import Engine, Finished, Request
from aim.errors import InvalidInput
from aim.models.prior import build
from tests.models.decoders import PACKED, Case, Decoder, apart, play
from tests.tiny import TINY, TINY_GPT

AIM, GPT = PACKED


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


@pytest.fixture(params=PACKED, ids=repr)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def played(model: Decoder, rows: int, steps: int) -> Tensor:
    """Logits (R, steps, V) of random codes; row i is the same whatever the number of rows."""
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(model.config.vocab_size, (64, steps), generator=generator)[:rows]
    return play(model, codes, torch.arange(rows) % (model.config.num_classes + 1), steps)[0]


ADALN = [
    {"adaln_group": False, "num_groups": 1},
    {"num_groups": 2},
    {"num_groups": 1, "position_offset": 1},
]
HEADS = [{}, {"n_head": 1}, {"n_head": 16}, {"d_model": 36, "n_head": 3, "multiple_of": 7}]


@pytest.mark.parametrize(
    ("case", "changes"),
    [*((AIM, changes) for changes in ADALN), *((GPT, changes) for changes in HEADS)],
)
def test_equals_eager_in_float32(case: Case, changes: dict):
    model = case.make(**changes)
    assert apart(played(case.prepare(model), 4, 16), played(model, 4, 16)) < 1e-6


def test_is_as_near_to_float32_as_eager_in_bfloat16(case: Case):
    exact, model = case.make(), case.make().to_dtype(torch.bfloat16)
    want = played(exact, 6, 16)
    eager, packed = played(model, 6, 16), played(case.prepare(model), 6, 16)
    assert packed.dtype == torch.float32
    assert apart(packed, want) < max(1.2 * apart(eager, want), 1e-2)
    codes, slots, prepared = torch.randint(64, (3, 9)), torch.tensor([2, 0, 1]), case.prepare(model)
    got = prepared.prefill(codes, slots, prepared.new_state(3), slots)
    assert torch.equal(got, model.prefill(codes, slots, model.new_state(3), slots))


@pytest.mark.parametrize(
    ("case", "config"),
    [
        pytest.param(AIM, dataclasses.replace(TINY, d_model=128), id="tiny"),
        pytest.param(AIM, dataclasses.replace(MODELS["aim-s"].config, n_layer=3), id="aim-s"),
        pytest.param(GPT, dataclasses.replace(TINY_GPT, d_model=128), id="tiny-gpt"),
        pytest.param(GPT, dataclasses.replace(MODELS["gpt-s"].config, n_layer=3), id="gpt-s"),
    ],
)
def test_a_bfloat16_row_has_the_same_bits_in_any_company(case: Case, config: PriorConfig):
    torch.manual_seed(0)
    model = case.prepare(build(config).eval().to_dtype(torch.bfloat16))
    together = played(model, 16, 5)
    for rows in (2, 4, 6, 10):
        assert torch.equal(played(model, rows, 5), together[:rows]), rows


def test_a_poisoned_slot_leaves_its_neighbours_alone(case: Case):
    model = case.prepare(case.make().to_dtype(torch.bfloat16))
    cond, state = model.condition(torch.tensor([1, 2, 3, 4])), model.new_state(4)
    clean = model.new_state(4)
    for part in state:
        part[:, 1] = torch.nan
    codes, positions = torch.tensor([5, 6, 7, 8]), torch.tensor([3, 3, 0, -1])
    got, want = (model.step(codes, positions, cond, s) for s in (state, clean))
    assert torch.equal(got[[0, 2, 3]], want[[0, 2, 3]])
    assert got[1].isnan().all()


def test_an_engine_on_it_draws_what_one_on_the_eager_model_does_alone_and_in_company(case: Case):
    eager = case.make()
    params = [
        SamplingParams(cfg_scale=3.0),
        SamplingParams(cfg_scale=1.0),
        SamplingParams(cfg_scale=2.0, top_k=20, top_p=0.9),
    ]
    requests = [Request(i % 5, params[i % 3], seed=i) for i in range(7)]

    def drawn(model: Decoder, most: int) -> dict[int, list[int]]:
        return {
            e.request_id: e.codes.tolist()
            for e in Engine(model, most).run(requests)
            if isinstance(e, Finished)
        }

    want = drawn(eager, 1)
    assert len(want) == len(requests)
    for most in (1, 2, 5):
        assert drawn(case.prepare(eager), most) == want


@pytest.mark.parametrize(("case", "config"), [(AIM, TINY), (GPT, TINY_GPT)])
def test_a_model_elsewhere_is_refused(case: Case, config: PriorConfig):
    with pytest.raises(InvalidInput, match="on meta"):
        case.prepare(blank(lambda: build(config)))
