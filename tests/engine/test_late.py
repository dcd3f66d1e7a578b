"""The engine where copies arrive late and steps are captured, as on a GPU: a stand-in for its
queue, driven by hand.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from aim.config import SamplingParams
from aim.engine import (
    Cancelled,
    Engine,
    Event,
    Failed,
    Finished,
    Preparing,
    Progress,
    Queued,
    Request,
    Server,
    Started,
    transfer,
)
from aim.engine import runner as runners
from aim.engine.transfer import DeviceQueue
from aim.errors import InvalidInput
from aim.models.aim.model import AiM
from aim.sampling import draw_rows
from tests.engine.late import LateQueue

GUIDED = SamplingParams(cfg_scale=3.0)


@pytest.fixture
def engine(tiny_model: AiM, queue: LateQueue) -> Iterator[Engine]:
    engine = Engine(tiny_model, max_requests=4, max_waiting=3)
    yield engine
    for _ in range(40):
        engine.step()
    assert engine.idle
    assert engine._scheduler.used == 0
    assert not engine._copies and not engine._leaving and not engine._places


def alone(model: AiM, request: Request) -> list[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer, "device_queue", DeviceQueue)
        return next(
            e.codes.tolist() for e in Engine(model, 1).run([request]) if isinstance(e, Finished)
        )


def of(events: list[Event], request: Request) -> list[Event]:
    return [e for e in events if e.request_id == request.id]


class TestCopies:
    def test_come_late_and_in_order(
        self, tiny_model: AiM, engine: Engine, queue: LateQueue
    ) -> None:
        requests = [
            Request(i, GUIDED, seed=i, preview_every=1 + i, explain=i == 1) for i in range(4)
        ]
        events = list(engine.run(requests))
        for request in requests:
            told = [e for e in of(events, request) if isinstance(e, (Progress, Finished))]
            assert [len(e.codes) for e in told] == [
                n for n in range(1, 17) if n == 16 or n % request.preview_every == 0
            ]
            assert isinstance(told[-1], Finished)
            assert told[-1].codes.tolist() == alone(tiny_model, request)
            assert all((e.codes == told[-1].codes[: len(e.codes)]).all() for e in told)
            assert [e.seconds for e in told] == sorted(e.seconds for e in told)
            assert all((e.notes is not None) == request.explain for e in told)
            assert not request.explain or all(e.notes.shape == (len(e.codes), 13) for e in told)

    def test_nothing_is_waited_for_while_somebody_runs(
        self, engine: Engine, queue: LateQueue
    ) -> None:
        requests = [Request(0, GUIDED, seed=i, preview_every=1) for i in range(7)]
        list(engine.run(requests))
        assert queue.waits == queue.lag + 1, "for the last codes, when there was nothing else to do"

    def test_rows_are_free_before_the_last_codes_have_arrived(
        self, tiny_model: AiM, engine: Engine, queue: LateQueue
    ) -> None:
        queue.lag = 100
        first, second = Request(0, GUIDED, id=1), Request(1, GUIDED, seed=1, id=2)
        engine.submit(first)
        for _ in range(4):
            engine.step()
        engine.submit(second)
        while first.id not in engine._leaving:
            assert not any(isinstance(event, Finished) for event in engine.step())
        assert engine._scheduler.used == 2, "the other's"
        with pytest.raises(InvalidInput, match="id 1"):
            engine.submit(Request(0, id=1))
        events = list(engine.run())
        assert [e.request_id for e in events if isinstance(e, Finished)] == [1, 2]
        assert all(
            of(events, r)[-1].codes.tolist() == alone(tiny_model, r) for r in (first, second)
        )

    def test_what_moves_and_leaves_does_not_disturb_copies_under_way(
        self, tiny_model: AiM, engine: Engine, queue: LateQueue
    ) -> None:
        queue.lag = 6
        requests = [Request(i, GUIDED, seed=i, preview_every=3) for i in range(4)]
        for request in requests[:2]:
            engine.submit(request)
        events = [event for _ in range(6) for event in engine.step()]
        for request in requests[2:]:
            engine.submit(request)
        events += engine.run([Request(4, GUIDED, seed=9)])
        for request in requests:
            assert of(events, request)[-1].codes.tolist() == alone(tiny_model, request)


class TestCancel:
    def test_while_codes_are_under_way(self, engine: Engine, queue: LateQueue) -> None:
        queue.lag = 5
        request, other = (
            Request(1, GUIDED, preview_every=1),
            Request(2, GUIDED, seed=4, preview_every=4),
        )
        engine.submit(request)
        engine.submit(other)
        events = [event for _ in range(9) for event in engine.step()]
        engine.cancel(request.id)
        rest = engine.step()
        assert of(rest, request) == [Cancelled(request.id)]
        assert of(events, request)[-1].step < 8, "some were still to come"
        rest += engine.run()
        assert of(rest, request) == [Cancelled(request.id)]
        assert [e.step for e in of(events + rest, other) if isinstance(e, Progress)] == [4, 8, 12]

    def test_between_the_last_code_and_its_arrival(self, engine: Engine, queue: LateQueue) -> None:
        queue.lag = 100
        request, other = Request(1, GUIDED), Request(2, GUIDED, seed=4)
        engine.submit(request)
        for _ in range(4):
            engine.step()
        engine.submit(other)
        while request.id not in engine._leaving:
            engine.step()
        engine.cancel(request.id)
        assert of(engine.step(), request) == [Cancelled(request.id)]
        assert of(list(engine.run()), request) == []

    def test_leaves_nothing_to_wait_for(self, engine: Engine, queue: LateQueue) -> None:
        request = Request(1, GUIDED, preview_every=1)
        engine.submit(request)
        for _ in range(4):
            engine.step()
        engine.cancel(request.id)
        assert engine.step() == [Cancelled(request.id)]
        assert engine.idle
        assert queue.waits == 0

    def test_closing_a_server_with_copies_under_way(
        self, tiny_model: AiM, queue: LateQueue
    ) -> None:
        queue.lag = 10**9
        server = Server(Engine(tiny_model, 2))
        streams = [server.stream(Request(i, GUIDED, preview_every=1)) for i in range(5)]
        next(streams[0])
        server.close()
        assert all(isinstance(list(stream)[-1], (Cancelled, Finished)) for stream in streams)
        assert server.engine.idle
        assert queue.drains == 1

    def test_a_generator_that_is_closed(self, engine: Engine, queue: LateQueue) -> None:
        queue.lag = 4
        events = engine.run([Request(i % 5, GUIDED, seed=i, preview_every=1) for i in range(9)])
        for _ in range(30):
            next(events)
        events.close()
        assert engine.idle


class TestFailure:
    @pytest.mark.parametrize("at", [3, 15])
    def test_a_broken_code_is_found_when_it_arrives(
        self,
        tiny_model: AiM,
        engine: Engine,
        queue: LateQueue,
        monkeypatch: pytest.MonkeyPatch,
        at: int,
    ) -> None:
        def damaged(logits: Tensor, rows: object) -> None:
            position = int(rows.positions[0])  # type: ignore[attr-defined]
            if position == at:
                logits = logits.clone()
                logits[0, 5] = torch.nan
            draw_rows(logits, rows)  # type: ignore[arg-type]

        broken, fine = Request(0, GUIDED, preview_every=1), Request(1, GUIDED, seed=6)
        with monkeypatch.context() as patch:
            patch.setattr(runners, "draw_rows", damaged)
            events = list(engine.run([broken, fine]))
        told = of(events, broken)
        assert [len(e.codes) for e in told if isinstance(e, Progress)] == list(range(1, at + 1))
        assert isinstance(told[-1], Failed)
        assert f"code {at}" in str(told[-1].error)
        assert len([e for e in told if isinstance(e, Failed)]) == 1
        assert of(events, fine)[-1].codes.tolist() == alone(tiny_model, fine)

    def test_a_device_that_is_gone_ends_everybody_once(
        self, engine: Engine, queue: LateQueue
    ) -> None:
        requests = [Request(i, GUIDED, seed=i, preview_every=2) for i in range(3)]
        for request in requests:
            engine.submit(request)
        events = [event for _ in range(8) for event in engine.step()]
        queue.broken = True
        while not engine.idle:
            events += engine.step()
        for request in requests:
            assert [type(e) for e in of(events, request) if isinstance(e, (Failed, Finished))] == [
                Failed
            ]
        queue.broken = False

    def test_a_model_that_raises_spares_what_was_drawn(
        self, tiny_model: AiM, queue: LateQueue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = Engine(tiny_model, 4)
        queue.lag = 50
        first, second = Request(0, GUIDED), Request(1, GUIDED, seed=2)
        engine.submit(first)
        for _ in range(5):
            engine.step()
        engine.submit(second)
        while first.id not in engine._leaving:
            engine.step()
        with monkeypatch.context() as patch:
            patch.setattr(engine._runner, "step", lambda rows: 1 / 0)
            assert [type(e) for e in engine.step()] == [Failed]
        [finished] = engine.run()
        assert isinstance(finished, Finished)
        assert finished.codes.tolist() == alone(tiny_model, first)


class TestGraphs:
    def test_each_size_once_and_everybody_is_told_before(
        self, tiny_model: AiM, engine: Engine, queue: LateQueue
    ) -> None:
        first = Request(0, GUIDED, seed=1)
        engine.submit(first)
        events = engine.step()
        assert events == [
            Started(first.id),
            Preparing(first.id, "Preparing the GPU for 2 images at once …"),
        ]
        assert engine.graphs.captures == 0
        assert engine.step() == []
        assert (engine.graphs.captures, engine._scheduler.running[first.id].step) == (1, 1)
        others = [Request(i, GUIDED, seed=i) for i in (2, 3)]
        for request in others:
            engine.submit(request)
        events = engine.step()
        assert {e.request_id for e in events if isinstance(e, Preparing)} == {
            first.id,
            *(r.id for r in others),
        }
        late = Request(4, GUIDED, seed=4)
        engine.submit(late)
        assert [e for e in engine.step() if isinstance(e, Preparing)] != [], (
            "somebody else is to know, too"
        )
        events = list(engine.run())
        assert engine.graphs.captures == 2
        assert not [e for e in events if isinstance(e, Preparing)]
        for request in (first, *others, late):
            assert of(events, request)[-1].codes.tolist() == alone(tiny_model, request), (
                "warming up has changed nothing"
            )
        list(engine.run([Request(i % 5, GUIDED, seed=i) for i in range(12)]))
        assert engine.graphs.captures == 2
        assert engine.graphs.warmup > 0

    def test_preparing_is_not_model_time(
        self, engine: Engine, queue: LateQueue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(queue, "capture", lambda run: time.sleep(0.5) or run)
        finished = list(engine.run([Request(0, GUIDED)]))[-1]
        assert engine.graphs.capture >= 0.5
        assert isinstance(finished, Finished)
        assert 0 < finished.seconds < 0.5

    def test_where_it_fails_the_step_runs_without(
        self, engine: Engine, queue: LateQueue, caplog: pytest.LogCaptureFixture
    ) -> None:
        queue.refuse = True
        request = Request(0, GUIDED, seed=3)
        with caplog.at_level(logging.WARNING, "aim"):
            events = list(engine.run([request]))
            list(engine.run([Request(1, GUIDED)]))
        assert events[-1].codes.tolist() == alone(engine.model, request)
        assert engine.graphs.captures == 0
        [record] = caplog.records
        assert "out of memory" in record.getMessage()

    def test_not_if_told_so(self, tiny_model: AiM, queue: LateQueue) -> None:
        engine = Engine(tiny_model, 2, captured=False)
        events = list(engine.run([Request(0, GUIDED)]))
        assert not [e for e in events if isinstance(e, (Preparing, Queued))]
        assert engine.graphs.captures == 0
