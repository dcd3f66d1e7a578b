"""One engine thread and many clients."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aim.config import SamplingParams
from aim.engine import (
    Cancelled,
    Engine,
    Failed,
    Finished,
    Progress,
    Queued,
    Request,
    Server,
    Started,
)
from aim.errors import GenerationError, InvalidInput, QueueFull
from aim.models.aim.model import AiM
from tests.waiting import until

GUIDED = SamplingParams(cfg_scale=3.0)


class Gated:
    """A model that takes a step for every permit, so that a test knows where the engine is;
    ``release`` lets it run freely.
    """

    def __init__(self, model: AiM) -> None:
        self._model = model
        self._permits = threading.Semaphore(0)
        self.free = False
        self.entered = 0
        self.explode = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def permit(self, steps: int) -> None:
        for _ in range(steps):
            self._permits.release()

    def release(self) -> None:
        self.free = True
        self._permits.release()

    def step(self, *args: torch.Tensor) -> torch.Tensor:
        self.entered += 1
        if not self.free:
            assert self._permits.acquire(timeout=60)
        if self.explode:
            raise RuntimeError("boom")
        return self._model.step(*args)


@pytest.fixture
def gated(tiny_model: AiM) -> Gated:
    return Gated(tiny_model)


@pytest.fixture
def server(gated: Gated) -> Iterator[Server]:
    server = Server(Engine(gated, max_requests=2, max_waiting=2))
    yield server
    gated.release()
    assert until(lambda: server.engine.idle, 60)
    assert_empty(server)
    server.close()
    assert not server.alive


def assert_empty(server: Server) -> None:
    assert server.engine._scheduler.used == 0
    assert until(lambda: not server._mailboxes, 60)
    assert not server.engine._places


def alone(model: AiM, request: Request) -> list[int]:
    return next(
        e.codes.tolist() for e in Engine(model, 1).run([request]) if isinstance(e, Finished)
    )


def test_a_stream_tells_everything(server: Server, gated: Gated, tiny_model: AiM) -> None:
    gated.release()
    request = Request(1, GUIDED, seed=3, preview_every=1)
    events = list(server.stream(request))
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert events[-1].codes.tolist() == alone(tiny_model, request)
    assert all(isinstance(e, Progress) for e in events[1:-1])


def test_a_slow_client_finds_the_newest_progress(server: Server, gated: Gated) -> None:
    stream = server.stream(Request(1, GUIDED, preview_every=1))
    gated.permit(5)
    assert until(lambda: gated.entered == 6, 60)
    assert isinstance(next(stream), Started)
    progress = next(stream)
    assert isinstance(progress, Progress)
    assert progress.step == 5
    gated.release()
    assert until(lambda: server.engine.idle, 60)
    assert until(lambda: server.tally.finished == 1, 60)
    assert [type(e) for e in stream] == [Finished], "a preview that is out of date is not sent"


def test_nobody_who_rests_is_woken_by_progress(server: Server, gated: Gated) -> None:
    stream = server.stream(Request(1, GUIDED, preview_every=1))
    gated.permit(1)
    assert isinstance(next(stream), Started)
    stream.rest(0.5)
    began = time.monotonic()
    gated.permit(3)
    progress = next(stream)
    assert isinstance(progress, Progress)
    assert time.monotonic() - began >= 0.5
    assert not stream.more, "the newest alone is had"
    stream.rest(60)
    gated.release()
    assert isinstance(next(stream), Finished), "what is done is told at once"
    assert time.monotonic() - began < 50


@pytest.mark.parametrize("steps", [0, 5])
def test_cancelled_within_a_step_by_another_thread(
    server: Server, gated: Gated, steps: int
) -> None:
    stream = server.stream(Request(1, GUIDED, preview_every=4))
    gated.permit(steps)
    assert until(lambda: gated.entered == steps + 1, 60)  # it is inside the next step
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(list, stream)
        stream.close()
        gated.permit(1)
        events = waiting.result(60)
    assert isinstance(events[-1], Cancelled)
    assert gated.entered == steps + 1, "no step is spent on it after that"
    assert server.engine.idle


def test_a_client_that_goes_away_leaves_nothing(server: Server, gated: Gated) -> None:
    stream = server.stream(Request(1, GUIDED))
    assert until(lambda: gated.entered == 1, 60)
    del stream
    gated.permit(1)
    assert until(lambda: server.engine.idle, 60)
    assert_empty(server)
    assert gated.entered == 1


def test_breaking_out_of_a_loop_cancels(server: Server, gated: Gated) -> None:
    gated.permit(3)
    for event in server.stream(Request(1, GUIDED, preview_every=1)):
        if isinstance(event, Progress):
            break
    gated.permit(1)
    assert until(lambda: server.engine.idle, 60)


def test_two_clients_share_steps_and_a_third_sees_its_place(
    server: Server, gated: Gated, tiny_model: AiM
) -> None:
    requests = [Request(i, GUIDED, seed=i) for i in range(4)]
    streams = [server.stream(r) for r in requests]
    with pytest.raises(QueueFull):
        server.stream(Request(0))
    gated.permit(2)  # the first may have begun before all were there
    assert until(lambda: gated.entered == 3, 60)
    assert [next(s) for s in streams[2:]] == [Queued(requests[2].id, 1), Queued(requests[3].id, 2)]
    gated.release()
    events = [list(s) for s in streams]
    assert isinstance(events[3][0], Started)
    assert [e[-1].codes.tolist() for e in events] == [alone(tiny_model, r) for r in requests]
    assert gated.entered <= 2 * 16 + 2, "pairs share their steps"


def test_bad_input_is_refused_at_once(server: Server) -> None:
    with pytest.raises(InvalidInput):
        server.stream(Request(99))
    assert not server._mailboxes


def test_a_model_that_explodes_fails_its_requests_and_the_next_is_served(
    server: Server, gated: Gated, tiny_model: AiM
) -> None:
    streams = [server.stream(Request(i, GUIDED)) for i in range(2)]
    assert until(lambda: gated.entered == 1, 60)
    gated.explode = True
    gated.permit(1)
    for stream in streams:
        failed = list(stream)[-1]
        assert isinstance(failed, Failed)
        assert str(failed.error) == "boom"
    gated.explode = False
    gated.release()
    request = Request(2, GUIDED, seed=8)
    assert list(server.stream(request))[-1].codes.tolist() == alone(tiny_model, request)


def test_closing_cancels_everything_and_refuses_more(gated: Gated) -> None:
    server = Server(Engine(gated, max_requests=1, max_waiting=2))
    streams = [server.stream(Request(i, GUIDED)) for i in range(3)]
    assert until(lambda: gated.entered == 1, 60)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(server.close)
        gated.permit(1)
        closing.result(60)
    assert [type(list(s)[-1]) for s in streams] == [Cancelled] * 3
    assert not server.alive
    assert_empty(server)
    with pytest.raises(GenerationError, match="closed"):
        server.stream(Request(0))
    server.close()


def test_whoever_waits_for_a_thread_that_died_is_told(
    gated: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aim.engine.desk._PATIENCE", 0.01)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    server = Server(Engine(gated))
    stream = server.stream(Request(0))
    monkeypatch.setattr(server.engine, "step", lambda: 1 / 0)
    gated.release()
    with pytest.raises(GenerationError, match="thread"):
        list(stream)
    assert list(stream) == []


def test_two_hundred_random_requests_leave_nothing(tiny_model: AiM) -> None:
    threads = threading.active_count()
    server = Server(Engine(tiny_model, max_requests=5, max_waiting=200))
    random = torch.Generator().manual_seed(0)
    fates = torch.randint(0, 4, (200,), generator=random).tolist()
    scales = torch.randint(1, 4, (200,), generator=random).tolist()

    def client(i: int) -> str:
        stream = server.stream(
            Request(
                i % 5, SamplingParams(cfg_scale=float(scales[i])), seed=i, preview_every=scales[i]
            )
        )
        for n, event in enumerate(stream):
            if fates[i] and n == fates[i]:
                if fates[i] == 1:
                    stream.close()
                else:
                    return "gone"
            if isinstance(event, (Finished, Cancelled)):
                return type(event).__name__
        return "nothing"

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(client, range(200)))
    assert set(outcomes) == {"Finished", "Cancelled", "gone"}
    gc.collect()
    assert until(lambda: server.engine.idle, 60)
    assert_empty(server)
    request = Request(3, GUIDED, seed=1)
    assert list(server.stream(request))[-1].codes.tolist() == alone(tiny_model, request)
    server.close()
    assert threading.active_count() == threads


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from([1.0, 2.0]), st.integers(0, 20)),
        min_size=2,
        max_size=8,
    )
)
def test_codes_do_not_depend_on_who_else_is_there(
    tiny_model: AiM, specs: list[tuple[int, float, int]]
) -> None:
    """Real threads: what runs together with what is up to the clock."""
    server = Server(Engine(tiny_model, max_requests=3, max_waiting=9))
    requests = [
        Request(label, SamplingParams(cfg_scale=scale), seed=seed) for label, scale, seed in specs
    ]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda r: list(server.stream(r))[-1].codes.tolist(), requests))
    server.close()
    assert made == [alone(tiny_model, r) for r in requests]
