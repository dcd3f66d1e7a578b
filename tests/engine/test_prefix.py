"""Requests that begin with given codes: kept exactly, read in one pass, and drawn on from as if
they had been drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from aim.config import SamplingParams
from aim.engine import Engine, Event, Failed, Finished, Progress, Request
from aim.errors import InvalidInput
from aim.models.aim.cpu import CPUAiM
from aim.models.gpt.cpu import CPUGPT
from tests.tiny import random_gpt, random_model

GUIDED, PLAIN = SamplingParams(cfg_scale=3.0), SamplingParams(cfg_scale=1.0)
MODELS: dict[str, Callable[[], Any]] = {
    "aim": random_model,
    "gpt": random_gpt,
    "cpu aim": lambda: CPUAiM(random_model()),
    "cpu gpt": lambda: CPUGPT(random_gpt()),
}


@pytest.fixture(scope="module", params=list(MODELS))
def model(request: pytest.FixtureRequest) -> Any:
    """A random prior in float32; read only."""
    return MODELS[request.param]()


def drawn(engine: Engine, *requests: Request) -> list[list[int]]:
    found = {
        event.request_id: event.codes.tolist()
        for event in engine.run(requests)
        if isinstance(event, Finished)
    }
    return [found[request.id] for request in requests]


@pytest.mark.parametrize("params", [GUIDED, PLAIN], ids=["guided", "plain"])
def test_a_drawing_that_is_taken_back_to_any_code_and_left_as_it_was_ends_as_before(
    model: Any, params: SamplingParams
) -> None:
    engine = Engine(model, 4)
    [whole] = drawn(engine, Request(2, params, seed=7))
    for kept in range(model.config.num_tokens):
        [again] = drawn(engine, Request(2, params, seed=7, prefix=tuple(whole[:kept])))
        assert again == whole, f"{kept} codes kept"


def test_company_changes_nothing(model: Any) -> None:
    requests = [
        Request(i, p, seed=i, prefix=range(n))
        for i, (p, n) in enumerate([(GUIDED, 5), (PLAIN, 1), (GUIDED, 0), (GUIDED, 15)])
    ]
    together = drawn(Engine(model, 4), *requests)
    assert together == [drawn(Engine(model, 1), request)[0] for request in requests]
    assert [codes[:n] for codes, n in zip(together, (5, 1, 0, 15), strict=True)] == [
        list(range(n)) for n in (5, 1, 0, 15)
    ]


def test_what_the_slot_held_before_does_not_matter(model: Any) -> None:
    engine, request = Engine(model, 1), Request(3, GUIDED, seed=1, prefix=(4, 9, 9))
    first = drawn(engine, request)
    drawn(engine, Request(0, GUIDED, seed=2))
    assert drawn(engine, Request(3, GUIDED, seed=1, prefix=(4, 9, 9))) == first


def test_another_class_goes_another_way(model: Any) -> None:
    engine = Engine(model, 2)
    one, other = drawn(
        engine,
        Request(0, GUIDED, seed=5, prefix=(1, 2, 3)),
        Request(4, GUIDED, seed=5, prefix=(1, 2, 3)),
    )
    assert one[:3] == other[:3] == [1, 2, 3]
    assert one != other


def test_progress_counts_the_given_codes_and_knows_nothing_of_them(model: Any) -> None:
    request = Request(0, GUIDED, preview_every=4, explain=True, prefix=np.array([5, 6, 7]))
    events: list[Event] = list(Engine(model, 1).run([request]))
    steps = [event.step for event in events if isinstance(event, Progress)]
    assert steps == [4, 8, 12]
    done = events[-1]
    assert isinstance(done, Finished)
    assert done.notes is not None
    assert not done.notes[:3].any()
    assert done.notes[3:].any(1).all()


def test_rows_that_move_take_their_prefix_along(model: Any) -> None:
    request = Request(1, GUIDED, seed=3, prefix=range(6))
    [want] = drawn(Engine(model, 1), request)
    engine = Engine(model, 8)
    short = [Request(0, GUIDED, seed=i, prefix=range(15)) for i in range(6)]  # done after one code
    assert drawn(engine, *short, request)[-1] == want


def test_values_that_are_out_of_range(model: Any) -> None:
    engine = Engine(model, 1)
    with pytest.raises(
        InvalidInput, match="prefix has 16 codes; it must leave some to draw, of 16"
    ):
        engine.submit(Request(0, prefix=range(16)))
    for code in (-1, 64):
        with pytest.raises(
            InvalidInput,
            match=rf"prefix holds the code {code}; codes are whole numbers in \[0, 63\]",
        ):
            engine.submit(Request(0, prefix=(1, code)))
    for prefix in ([0.5], [[1, 2]], "ab"):
        with pytest.raises(InvalidInput, match="it must be a sequence of codes"):
            Request(0, prefix=prefix)  # type: ignore[arg-type]
    assert engine.idle


def test_a_prefix_that_cannot_be_read_fails_its_own_request_alone(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(model, 2)
    [want] = drawn(engine, Request(2, GUIDED, seed=1))

    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("no")

    monkeypatch.setattr(model, "prefill", broken)
    bad, good = Request(0, GUIDED, prefix=(1, 2)), Request(2, GUIDED, seed=1)
    engine.submit(good)
    events = engine.step()
    engine.submit(bad)
    events += list(engine.run())
    assert [type(event) for event in events if event.request_id == bad.id] == [Failed]
    assert [event.codes.tolist() for event in events if isinstance(event, Finished)] == [want]
