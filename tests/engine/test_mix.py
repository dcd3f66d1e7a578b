"""A request for a mix of classes: what it is, and that it draws in everybody's batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aim.config import SamplingParams
from aim.engine import Engine, Finished, Request
from aim.errors import InvalidInput
from aim.models.aim.cpu import CPUAiM
from aim.models.gpt.cpu import CPUGPT
from tests.tiny import random_gpt, random_model

GUIDED = SamplingParams(cfg_scale=3.0)
MODELS: dict[str, tuple[Any, Any]] = {
    "aim": (random_model, lambda model: model),
    "gpt": (random_gpt, lambda model: model),
    "cpu aim": (random_model, CPUAiM),
    "cpu gpt": (random_gpt, CPUGPT),
}


def drawn(model: Any, *requests: Request) -> list[list[int]]:
    done = {e.request_id: e for e in Engine(model, 4).run(requests) if isinstance(e, Finished)}
    return [done[request.id].codes.tolist() for request in requests]


@pytest.mark.parametrize("kind", MODELS)
def test_a_mix_draws_what_a_class_with_its_embedding_draws(kind: str) -> None:
    make, prepare = MODELS[kind]
    model, other = make(), make()
    weights = {1: 0.2, 3: 0.5, 4: 0.3}
    table = other.class_table
    table[0] = sum(weight * table[row].double() for row, weight in weights.items()).float()
    mix = Request(list(weights.items()), GUIDED, seed=8)
    company = [Request(row, GUIDED, seed=row) for row in (1, 2, 3)]
    alone, *others = (drawn(prepare(model), r)[0] for r in (mix, *company))
    assert [alone] == drawn(prepare(other), Request(0, GUIDED, seed=8))
    assert drawn(prepare(model), *company, mix) == [*others, alone], "in one batch"
    assert all(alone != drawn(model, Request(row, GUIDED, seed=8))[0] for row in weights)


@pytest.mark.parametrize("mix", [[(2, 1.0)], [(1, 0), (2, 1)]])
def test_a_mix_of_one_is_the_class(mix: list[tuple[int, float]]) -> None:
    request = Request(mix)
    assert request.label == 2
    assert request.mix == Request(2).mix == ((2, 1.0),)


def test_a_mix_reads_a_prefix() -> None:
    model, mix = random_model(), ((1, 0.5), (3, 0.5))
    [whole] = drawn(model, Request(mix, GUIDED, seed=4))
    assert drawn(model, Request(mix, GUIDED, seed=4, prefix=whole[:7])) == [whole]
    assert drawn(model, Request(1, GUIDED, seed=4, prefix=whole[:7])) != [whole]


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ([], r"the mix is \[\]; its weights must add up to 1"),
        ([(0, 0.5), (1, 0.4)], "its weights must add up to 1"),
        ([(0, -0.5), (1, 1.5)], r"weight is -0\.5; it must be a number in \[0, 1\]"),
        ([(0, "half"), (1, 0.5)], "weight is 'half'"),
        ([1, 2], r"the mix is \[1, 2\]; it must be pairs of a class row and its weight"),
    ],
)
def test_what_is_no_mix(mix: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Request(mix)


def test_every_class_of_a_mix_must_be_there() -> None:
    with pytest.raises(
        InvalidInput, match=r"class row is 5; it must be a whole number in \[0, 4\]"
    ):
        Engine(random_model()).submit(Request([(0, 0.5), (5, 0.5)]))


def test_a_mix_weighs_in_float32() -> None:
    """In bfloat16 the shares would be rounded to three digits before they weigh."""
    model = random_model().to_dtype(torch.bfloat16)
    runner = Engine(model, 1)._runner
    near, far = runner._embeddings([((0, 0.501), (1, 0.499)), ((0, 0.499), (1, 0.501))])
    a, b = model.class_table[:2].float()
    assert torch.equal(near, (a + 0.499 * (b - a)).bfloat16())
    assert torch.equal(far, (a + 0.501 * (b - a)).bfloat16())
