"""The engine on tiny random models of either kind, stepped by hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aim.config import SamplingParams
from aim.engine import (
    Cancelled,
    Engine,
    Event,
    Failed,
    Finished,
    Progress,
    Queued,
    Request,
    Started,
    runner,
)
from aim.errors import GenerationError, InvalidInput, QueueFull
from aim.models.gpt.cpu import CPUGPT
from aim.models.prior import Prior
from aim.sampling import RowParams, Rows, draw_rows, explain, guide, sample
from tests.tiny import random_gpt, random_model

GUIDED, PLAIN = SamplingParams(cfg_scale=3.0), SamplingParams(cfg_scale=1.0)
MODELS: dict[str, Callable[[], Any]] = {
    "aim": random_model,
    "gpt": random_gpt,
    "cpu gpt": lambda: CPUGPT(random_gpt()),
}


@pytest.fixture(scope="module", params=["aim", "gpt"])
def tiny_model(request: pytest.FixtureRequest) -> Any:
    """A random prior in float32; read only."""
    return MODELS[request.param]()


@pytest.fixture
def engine(tiny_model: Prior) -> Iterator[Engine]:
    engine = Engine(tiny_model, max_requests=4, max_waiting=3)
    yield engine
    assert_empty(engine)


def assert_empty(engine: Engine) -> None:
    """Nothing is left behind: no request, no slot, no place in line."""
    for _ in range(40):
        engine.step()
    assert engine.idle
    assert engine._scheduler.used == 0
    assert not engine._cancelled
    assert not engine._places


def codes_of(events: list[Event], request: Request) -> list[int]:
    return next(
        e.codes.tolist() for e in events if isinstance(e, Finished) and e.request_id == request.id
    )


def alone(model: Prior, request: Request) -> list[int]:
    return codes_of(list(Engine(model, 1).run([request])), request)


def kinds(events: list[Event], request: Request) -> list[type]:
    return [type(e) for e in events if e.request_id == request.id]


class TestOneRequest:
    def test_events(self, engine: Engine) -> None:
        request = Request(2, GUIDED, seed=5, preview_every=6)
        events = list(engine.run([request]))
        assert kinds(events, request) == [Started, Progress, Progress, Finished]
        finished = events[-1]
        assert isinstance(finished, Finished)
        assert finished.codes.shape == (16,)
        assert finished.codes.dtype == np.int64
        progress = [e for e in events if isinstance(e, Progress)]
        assert [(e.step, e.total) for e in progress] == [(6, 16), (12, 16)]
        assert all((e.codes == finished.codes[: e.step]).all() for e in progress)
        assert 0 < progress[0].seconds < progress[1].seconds < finished.seconds

    def test_a_preview_that_falls_on_the_end_is_the_end(self, engine: Engine) -> None:
        request = Request(2, GUIDED, preview_every=8)
        assert kinds(list(engine.run([request])), request) == [Started, Progress, Finished]

    def test_codes_are_what_the_model_and_the_sampler_say(
        self, tiny_model: Prior, engine: Engine
    ) -> None:
        request = Request(
            3, SamplingParams(cfg_scale=2.0, temperature=0.9, top_k=20, top_p=0.9), seed=77
        )
        labels = torch.tensor([3, 5])
        cond, state = tiny_model.condition(labels), tiny_model.new_state(2)
        last, expected = torch.zeros(2, dtype=torch.int64), []
        with torch.inference_mode():
            for position in range(16):
                logits = tiny_model.step(last, torch.full((2,), position), cond, state)
                row = RowParams.of([request.params], [request.seed], 16)
                last = sample(logits[:1], logits[1:], row, torch.tensor([position])).expand(2)
                expected.append(int(last[0]))
        assert codes_of(list(engine.run([request])), request) == expected

    def test_notes_are_what_the_sampler_says(self, tiny_model: Prior, engine: Engine) -> None:
        asked = Request(3, GUIDED, seed=77, preview_every=7, explain=True)
        other = Request(1, GUIDED, seed=5, preview_every=5)
        events = list(engine.run([other, asked]))
        assert all(
            e.notes is None
            for e in events
            if isinstance(e, (Progress, Finished)) and e.request_id == other.id
        )
        told = [
            e for e in events if isinstance(e, (Progress, Finished)) and e.request_id == asked.id
        ]
        codes, notes = torch.from_numpy(told[-1].codes), told[-1].notes
        assert [len(e.notes) for e in told] == [7, 14, 16]
        assert all((e.notes == notes[: len(e.notes)]).all() for e in told)
        # (16, 64) each
        cond, uncond = tiny_model(codes[None, :-1].expand(2, -1), torch.tensor([3, 5]))
        expected = explain(cond, uncond, guide(cond, uncond, torch.full((16,), 3.0)), codes)
        torch.testing.assert_close(
            torch.from_numpy(notes)[:, :8], expected[:, :8], atol=1e-3, rtol=1e-3
        )

    def test_its_parts_all_matter(self, tiny_model: Prior) -> None:
        requests = [
            Request(1, GUIDED, seed=1),
            Request(2, GUIDED, seed=1),
            Request(1, GUIDED, seed=2),
            Request(1, PLAIN, seed=1),
            Request(1, SamplingParams(cfg_scale=3.0, temperature=0.0), seed=1),
        ]
        assert len({tuple(alone(tiny_model, r)) for r in requests}) == len(requests)

    @pytest.mark.parametrize("label", [-1, 5, 1.0, "goldfish", None])
    def test_an_unknown_class_row_is_refused(self, engine: Engine, label: object) -> None:
        with pytest.raises(InvalidInput, match=r"\[0, 4\]"):
            engine.submit(Request(label))  # type: ignore[arg-type]

    def test_an_id_in_use_is_refused(self, engine: Engine) -> None:
        engine.submit(Request(0, id=1))
        with pytest.raises(InvalidInput, match="id 1"):
            engine.submit(Request(0, id=1))


@pytest.mark.parametrize(("requests", "waiting"), [(0, 1), (1, -1), (1.5, 1)])
def test_an_engine_without_room_is_refused(tiny_model: Prior, requests: int, waiting: int) -> None:
    with pytest.raises(InvalidInput, match=r"max_requests is [01]|max_waiting is -1"):
        Engine(tiny_model, requests, waiting)


class TestTheLine:
    def test_places_are_told_when_they_change(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("aim.engine.scheduler.AGAIN", 0.0)
        monkeypatch.setattr("aim.engine.scheduler.PLACES_A_SECOND", 1e9)
        requests = [Request(0, GUIDED, seed=i) for i in range(7)]
        for request in requests:
            engine.submit(request)
        with pytest.raises(QueueFull):
            engine.submit(Request(0))
        first = engine.step()
        assert [(e.request_id, e.place) for e in first if isinstance(e, Queued)] == [
            (requests[4 + i].id, 1 + i) for i in range(3)
        ]
        assert engine.step() == [], "no news"
        engine.cancel(requests[4].id)
        events = engine.step()
        assert events == [
            Cancelled(requests[4].id),
            Queued(requests[5].id, 1),
            Queued(requests[6].id, 2),
        ]
        engine.cancel(requests[0].id)
        assert engine.step() == [
            Cancelled(requests[0].id),
            Queued(requests[6].id, 1),
            Started(requests[5].id),
        ]
        rest = list(engine.run())
        assert {e.request_id for e in rest if isinstance(e, Finished)} == {
            requests[i].id for i in (1, 2, 3, 5, 6)
        }

    def test_run_takes_more_than_the_line_holds(self, engine: Engine) -> None:
        requests = [Request(i % 5, GUIDED, seed=i) for i in range(20)]
        events = list(engine.run(requests))
        assert [e.request_id for e in events if isinstance(e, Finished)] == [r.id for r in requests]

    def test_a_finished_request_makes_room_at_the_next_step(self, engine: Engine) -> None:
        requests = [Request(0, GUIDED, seed=i) for i in range(5)]
        for request in requests:
            engine.submit(request)
        for _ in range(16):
            events = engine.step()
        assert [type(e) for e in events] == [Finished] * 4
        assert engine.step() == [Started(requests[4].id)]

    def test_alone_is_alone(self, tiny_model: Prior, engine: Engine) -> None:
        requests = [
            Request(0, GUIDED, seed=1),
            Request(1, GUIDED, seed=2, alone=True),
            Request(2, GUIDED, seed=3),
        ]
        events = list(engine.run(requests))
        order = [(type(e), e.request_id) for e in events if isinstance(e, (Started, Finished))]
        assert order == [(kind, r.id) for r in requests for kind in (Started, Finished)]


class TestCancel:
    @pytest.mark.parametrize("steps", [0, 1, 7, 14])
    def test_takes_effect_with_the_next_step(self, engine: Engine, steps: int) -> None:
        request, other = Request(1, GUIDED, preview_every=1), Request(2, GUIDED, seed=9)
        engine.submit(request)
        engine.submit(other)
        for _ in range(steps):
            engine.step()
        engine.cancel(request.id)
        engine.cancel(request.id)
        events = engine.step()
        assert kinds(events, request) == [Cancelled]
        assert engine._scheduler.used == 2
        assert codes_of(list(engine.run()), other) == alone(engine.model, other)

    def test_is_harmless_for_what_is_gone(self, engine: Engine) -> None:
        request = Request(1, GUIDED)
        list(engine.run([request]))
        engine.cancel(request.id)
        engine.cancel(10**9)
        assert engine.step() == []

    def test_closing_the_generator_cancels_what_it_submitted(self, engine: Engine) -> None:
        other = Request(4, GUIDED, seed=3)
        engine.submit(other)
        events = engine.run([Request(i % 5, GUIDED, seed=i, preview_every=1) for i in range(12)])
        for _ in range(20):
            next(events)
        events.close()
        assert engine._scheduler.used == 2, "only the other one is left"
        assert codes_of(list(engine.run()), other) == alone(engine.model, other)

    def test_a_generator_that_never_ran_leaves_nothing(self, engine: Engine) -> None:
        engine.run([Request(0)]).close()
        assert engine.idle


class Moody:
    """A model that misbehaves on demand: ``mood`` sees the logits of every step, and may change
    them or raise.
    """

    def __init__(self, model: Prior, mood: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._model, self.mood = model, mood

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def step(self, *args: torch.Tensor) -> torch.Tensor:
        return self.mood(self._model.step(*args))


class TestFailure:
    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize("row", [2, 3])
    def test_logits_that_are_not_finite_fail_their_request_alone(
        self, tiny_model: Prior, value: float, row: int
    ) -> None:
        calls = []

        def mood(logits: torch.Tensor) -> torch.Tensor:
            calls.append(0)
            if len(calls) == 6:
                logits[row, 11] = value
            return logits

        engine = Engine(Moody(tiny_model, mood), 4)
        requests = [Request(i, GUIDED, seed=i, preview_every=4) for i in range(3)]
        events = list(engine.run(requests))
        assert kinds(events, requests[1]) == [Started, Progress, Failed]
        failure = next(e for e in events if isinstance(e, Failed))
        assert isinstance(failure.error, GenerationError)
        assert "code 5" in str(failure.error)
        for request in (requests[0], requests[2]):
            assert codes_of(events, request) == alone(tiny_model, request)
        assert_empty(engine)

    def test_a_poisoned_slot_does_not_poison_the_next_request(self, tiny_model: Prior) -> None:
        engine = Engine(tiny_model, 1)
        request = Request(1, GUIDED, seed=4)
        engine.submit(request)
        for _ in range(3):
            engine.step()
        with torch.inference_mode():
            for part in engine._runner._state:
                part.fill_(torch.nan)
        assert [type(e) for e in engine.run()] == [Failed]
        again = Request(1, GUIDED, seed=4)
        assert codes_of(list(engine.run([again])), again) == alone(tiny_model, request)

    def test_a_model_that_raises_fails_who_runs_and_serves_who_waits(
        self, tiny_model: Prior
    ) -> None:
        calls = []

        def mood(logits: torch.Tensor) -> torch.Tensor:
            calls.append(0)
            if len(calls) == 5:
                raise RuntimeError("out of memory")
            return logits

        engine = Engine(Moody(tiny_model, mood), 2)
        requests = [Request(i, GUIDED, seed=i) for i in range(4)]
        events = list(engine.run(requests))
        assert [kinds(events, r)[-1] for r in requests] == [Failed, Failed, Finished, Finished]
        assert all("out of memory" in str(e.error) for e in events if isinstance(e, Failed))
        assert all(codes_of(events, r) == alone(tiny_model, r) for r in requests[2:])
        assert_empty(engine)

    def test_a_request_that_cannot_join_fails_alone(
        self, tiny_model: Prior, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = Engine(tiny_model, 2)
        condition = tiny_model.condition

        def refuse(embeddings: torch.Tensor) -> torch.Tensor:
            if torch.equal(embeddings[0], tiny_model.class_table[3]):
                raise RuntimeError("no such row")
            return condition(embeddings)

        monkeypatch.setattr(tiny_model, "condition", refuse)
        requests = [Request(3, GUIDED), Request(1, GUIDED, seed=1), Request(2, GUIDED, seed=2)]
        events = list(engine.run(requests))
        assert kinds(events, requests[0]) == [Failed]
        assert all(codes_of(events, r) == alone(tiny_model, r) for r in requests[1:])
        assert_empty(engine)


class Witness:
    """Stands before the sampler and keeps the bits of every logit row by (seed, position)."""

    def __init__(self) -> None:
        self.seen: dict[int, dict[int, bytes]] = defaultdict(dict)

    def __call__(self, logits: torch.Tensor, rows: Rows) -> None:
        for row in range(len(logits)):
            if (other := int(rows.partner[row])) >= 0:
                bits = logits[row].numpy().tobytes() + logits[other].numpy().tobytes()
                self.seen[int(rows.seed[row])][int(rows.positions[row])] = bits
        draw_rows(logits, rows)


SPECS = [  # the seed names the request
    (seed, seed % 5, SamplingParams(cfg_scale, temperature, top_k, top_p))
    for seed, (cfg_scale, temperature, top_k, top_p) in enumerate(
        [
            (3.0, 1.0, 0, 1.0),
            (1.0, 1.0, 0, 1.0),
            (1.5, 0.7, 10, 1.0),
            (1.0, 0.0, 0, 1.0),
            (4.0, 1.3, 0, 0.8),
            (1.0, 1.0, 30, 0.5),
            (0.0, 1.0, 0, 1.0),
        ]
    )
]


@pytest.fixture(scope="module")
def references(tiny_model: Prior) -> dict[int, tuple[list[int], dict[int, bytes]]]:
    """Codes and logits of every spec made alone, by seed."""
    made = {}
    for seed, label, params in SPECS:
        with pytest.MonkeyPatch.context() as patch:
            witness = Witness()
            patch.setattr(runner, "draw_rows", witness)
            made[seed] = alone(tiny_model, Request(label, params, seed)), witness.seen[seed]
    return made


@pytest.mark.parametrize("tiny_model", MODELS, indirect=True, scope="module")
class TestOneSeedOneImage:
    @settings(
        max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_codes_and_logits_are_equal_alone_and_in_any_company(
        self,
        tiny_model: Prior,
        references: dict,
        monkeypatch: pytest.MonkeyPatch,
        data: st.DataObject,
    ) -> None:
        witness = Witness()
        monkeypatch.setattr(runner, "draw_rows", witness)
        engine = Engine(tiny_model, data.draw(st.integers(1, 5)), 64)
        order = data.draw(st.permutations(SPECS))
        arrivals = data.draw(st.lists(st.integers(0, 30), min_size=len(order), max_size=len(order)))
        # in steps, then cancelled
        lifetimes = data.draw(
            st.lists(st.integers(1, 60), min_size=len(order), max_size=len(order))
        )
        events: list[Event] = []
        requests = [Request(label, params, seed, preview_every=5) for seed, label, params in order]
        for step in range(400):
            for request, arrival, lifetime in zip(requests, arrivals, lifetimes, strict=True):
                if step == arrival:
                    engine.submit(request)
                if step == arrival + lifetime:
                    engine.cancel(request.id)
            events += engine.step()
            if step > max(arrivals) and engine.idle:
                break
        assert_empty(engine)
        for request in requests:
            codes, logits = references[request.seed]
            last = [e for e in events if e.request_id == request.id][-1]
            assert isinstance(last, (Finished, Cancelled))
            if isinstance(last, Finished):
                assert last.codes.tolist() == codes
                assert len(witness.seen[request.seed]) == 16
            assert all(
                logits[position] == bits for position, bits in witness.seen[request.seed].items()
            )

    def test_the_row_moves_and_nothing_changes(self, tiny_model: Prior, references: dict) -> None:
        engine = Engine(tiny_model, 4)
        company = [Request(0, GUIDED, seed=100 + i) for i in range(3)]
        seed, label, params = SPECS[0]
        request = Request(label, params, seed)
        for r in [*company, request]:
            engine.submit(r)
        for _ in range(7):
            engine.step()
        assert engine._scheduler.running[request.id].slots == [6, 7]
        for r in company:
            engine.cancel(r.id)
        engine.step()
        assert engine._scheduler.rows == 4, "the batch shrinks"
        assert codes_of(list(engine.run()), request) == references[seed][0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", [random_model, random_gpt])
def test_codes_are_equal_at_the_size_of_a_real_vocabulary(
    make: Callable[..., Prior], dtype: torch.dtype
) -> None:
    model = make(vocab_size=16384, num_tokens=4).to_dtype(dtype)
    requests = [
        Request(
            i % 5, SamplingParams(cfg_scale=[3.0, 1.0][i % 2], top_p=[1.0, 0.9][i % 3 == 0]), seed=i
        )
        for i in range(9)
    ]
    events = list(Engine(model).run(requests))
    assert all(codes_of(events, r) == alone(model, r) for r in requests)


def test_conditions_of_those_in_line_are_made_along(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_gpt()
    asked = [Request(i % 5, SamplingParams(2.0), seed=i) for i in range(9)]
    want = [e.codes.tolist() for e in Engine(model, 9).run(asked) if isinstance(e, Finished)]
    engine, made = Engine(model, 1, 8), []
    engine._runner.together = 4
    monkeypatch.setattr(
        engine._runner, "_condition", lambda mixes: made.append(len(mixes)) or real(mixes)
    )
    real = type(engine._runner)._condition.__get__(engine._runner)
    got = []
    for event in engine.run(asked):
        if isinstance(event, Started) and event.request_id == asked[2].id:
            engine.cancel(asked[3].id)
        got += [event.codes.tolist()] if isinstance(event, Finished) else []
    assert got == want[:3] + want[4:]
    assert made == [4, 4, 1]
    assert not engine._runner._made
