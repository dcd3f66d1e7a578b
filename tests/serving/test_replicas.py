"""Many engines behind the interface of one: the same pictures, whatever becomes of a replica."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

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
    Server,
)
from aim.errors import GenerationError, InvalidInput, QueueFull
from aim.models.vq.model import VQ
from aim.pipeline import Pipeline
from aim.serving import pulse, replica
from tests.serving.conftest import Rack
from tests.serving.sockets import Host
from tests.tiny import random_model
from tests.waiting import until

GUIDED = SamplingParams(cfg_scale=3.0)
Pictures = Callable[[list[Any]], list[list[int]]]


class Gate:
    """Steps of a model wait until it is opened, but for the first so many."""

    def __init__(self, steps: int = 0) -> None:
        self._left, self.steps, self._open = steps, 0, threading.Event()

    def model(self, **changes: Any) -> Any:
        model = random_model(**changes)
        step = model.step

        def gated(*args: Any) -> Any:
            self.steps += 1
            if self.steps > self._left:
                assert self._open.wait(60)
            return step(*args)

        model.step = gated  # type: ignore[method-assign]
        return model

    def open(self) -> None:
        self._open.set()


def finished(events: list[Event]) -> dict[int, list[int]]:
    return {e.request_id: e.codes.tolist() for e in events if isinstance(e, Finished)}


def under_way(host: Host) -> int:
    return host.server.engine.running + host.server.engine.waiting


def kinds(events: list[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_the_pictures_of_one_engine_seed_by_seed(rack: Rack, pictures: Pictures) -> None:
    for name in "ab":
        rack.host(name)
    client = rack.client()
    requests = [
        *(Request(seed % 5, SamplingParams(cfg_scale=1 + seed % 3), seed) for seed in range(12)),
        Request([(1, 0.25), (2, 0.75)], GUIDED, 7),
        Request(1, GUIDED, 8, prefix=[3, 1, 4]),
    ]
    found = finished(list(client.stream(*requests)))
    assert [found[request.id] for request in requests] == pictures(requests)
    assert client.tally.finished == client.tally.requests == 14
    assert until(lambda: sum(report.tally.finished for report in client.reports) == 14)
    assert [report.name for report in client.reports if report.tally.finished] == ["a", "b"]
    assert client.engine == (4, 0, 0)


def test_everything_is_told(rack: Rack) -> None:
    rack.host("a")
    request = Request(1, GUIDED, preview_every=1, explain=True)
    events = list(rack.client().stream(request))
    assert kinds(events)[:: len(events) - 1] == ["Started", "Finished"]
    (alone,) = [e for e in Engine(random_model(), 1).run([request]) if isinstance(e, Finished)]
    assert np.array_equal(events[-1].notes, alone.notes)  # type: ignore[union-attr]


def test_one_stream_goes_on_when_a_replica_ends(rack: Rack, pictures: Pictures) -> None:
    gate = Gate(steps=6)
    host = rack.host("a", model=gate.model())
    client = rack.client()
    request = Request(1, GUIDED, 5, preview_every=1)
    stream = client.stream(request)
    before = [next(stream), next(stream)]
    while before[-1].step < 6:  # type: ignore[union-attr]
        before.append(next(stream))
    rack.host("b")
    threading.Thread(target=host.end).start()
    gate.open()
    events = [*before, *stream]
    assert kinds(events) == ["Started", *["Progress"] * (len(events) - 2), "Finished"]
    steps = [e.step for e in events if isinstance(e, Progress)]
    assert steps == sorted(set(steps)), "nothing is told twice"
    (codes,) = pictures([request])
    for event in events[1:]:
        shown = event.codes.tolist()  # type: ignore[union-attr]
        assert shown == codes[: len(shown)]
    assert (client.tally.restarted, client.tally.finished, client.tally.failed) == (1, 1, 0)


def test_who_fails_at_once_does_not_get_everything(
    rack: Rack, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "HOLD", 0.2)
    broken = random_model()

    def explode(*_: object) -> None:
        raise RuntimeError("the device is lost")

    broken.step = explode  # type: ignore[method-assign, assignment]
    host = rack.host("a", model=broken)
    rack.host("b")
    client = rack.client()
    requests = [Request(1, GUIDED, seed) for seed in range(4)]
    found = finished(list(client.stream(*requests)))
    assert [found[request.id] for request in requests] == pictures(requests)
    assert client.tally.restarted == host.server.tally.failed > 0
    with pytest.raises(GenerationError, match="the model failed"):
        for _ in range(replica.FAILURES):
            host.replica.check()
            list(client.stream(*(Request(1, GUIDED, seed) for seed in range(4))))
    rack.hosts["b"].replica.check()
    host.server.close()
    with pytest.raises(GenerationError, match="thread has ended"):
        host.replica.check()


def test_who_ends_every_replica_is_told_in_the_end(
    rack: Rack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aim.serving.replicas._PAUSE", 0.0)
    rack.host("a")
    client = rack.client()

    async def draw(call: object) -> Any:
        raise ConnectionError("/a/path/of/the/server")
        yield

    monkeypatch.setattr(client._fleet, "draw", draw)
    (event,) = client.stream(Request(1))
    assert isinstance(event, Failed)
    assert str(event.error) == "5 replicas ended while they drew this; try again in a moment"


def test_a_refusal_of_a_replica_is_told(rack: Rack) -> None:
    rack.host("a", model=random_model())
    client = rack.client()
    with pytest.raises(InvalidInput, match="class row is 5"):
        client.stream(Request(5))
    stream = client.stream(Request(1))
    with pytest.raises(InvalidInput, match="already in use"):
        stream.submit(Request(1, id=min(client._mailboxes)))
    stream.close()


@pytest.mark.parametrize("when", ["waiting", "drawing", "closed"])
def test_cancel_arrives(rack: Rack, when: str) -> None:
    gate = Gate(steps=3)
    rack.host("a", places=1, model=gate.model())
    client = rack.client()
    first = Request(1, GUIDED, preview_every=1)
    stream, waiting = client.stream(first), client.stream(Request(2))
    assert until(lambda: gate.steps > 3)
    assert isinstance(next(waiting), Queued)
    if when == "closed":
        threading.Thread(target=client.close).start()
    else:
        (waiting if when == "waiting" else stream).close()
    gate.open()
    ended, other = list(waiting), list(stream)
    assert isinstance(other[-1], Finished if when == "waiting" else Cancelled)
    assert isinstance(ended[-1], Finished if when == "drawing" else Cancelled)
    assert until(lambda: rack.idle)
    assert rack.hosts["a"].server.tally.cancelled == (when != "waiting")
    assert until(lambda: not client._tasks)
    assert not client._mailboxes and client._turns.idle


def test_a_cancel_that_is_lost_is_made_good_by_the_next_beat(rack: Rack) -> None:
    gate = Gate(steps=3)
    host = rack.host("a", model=gate.model())
    client = rack.client()
    stream, other = (client.stream(Request(1, GUIDED, seed)) for seed in (1, 2))
    assert until(lambda: under_way(host) == 2)
    client._fleet.deaf = True  # type: ignore[attr-defined]
    stream.close()
    assert until(lambda: len(host.replica._calls) == 1), "the next beat does not name it"
    gate.open()
    assert isinstance(list(other)[-1], Finished)
    assert kinds(list(stream))[-1] == "Cancelled"
    assert until(lambda: host.server.engine.idle)
    assert (host.server.tally.cancelled, host.server.tally.finished) == (1, 1)


def test_who_is_not_heard_of_has_nothing_drawn(rack: Rack) -> None:
    gate = Gate(steps=3)
    host = rack.host("a", model=gate.model(), lease=0.3)
    client = rack.client()
    stream = client.stream(Request(1, GUIDED))
    assert until(lambda: host.server.engine.running == 1)
    assert not until(lambda: host.server.tally.cancelled == 1, 0.6), "it is heard of"
    client._fleet.silent = client._fleet.deaf = True  # type: ignore[attr-defined]
    threading.Timer(0.6, gate.open).start()
    assert until(lambda: host.server.tally.cancelled > 0)
    client._fleet.silent = False  # type: ignore[attr-defined]
    assert isinstance(list(stream)[-1], Finished), "it is heard of again, and drawn again"


def test_places_are_told_and_the_line_is_bounded(rack: Rack) -> None:
    gate = Gate()
    rack.host("a", places=1, model=gate.model())
    client = rack.client(max_waiting=2)
    streams = [client.stream(Request(1)) for _ in range(3)]
    assert [next(stream) for stream in streams[1:]] == [
        Queued(min(stream._pending), place) for place, stream in enumerate(streams[1:], 1)
    ]
    with pytest.raises(QueueFull, match="1 images are being drawn and 2 wait"):
        client.stream(Request(1))
    assert client.engine == (1, 1, 2) and not client.engine.room and not client.engine.idle
    rack.host("0", places=3)  # comes, and takes who waits
    assert [kinds(list(stream))[-1] for stream in streams[1:]] == ["Finished"] * 2
    assert client.engine.max_requests == 4
    gate.open()
    assert isinstance(list(streams[0])[-1], Finished)


def test_two_clients_get_their_share(rack: Rack) -> None:
    gate = Gate()
    host = rack.host("a", places=4, model=gate.model())
    one, two = rack.client(), rack.client()
    many = one.stream(*(Request(1, seed=seed) for seed in range(8)))
    assert until(lambda: under_way(host) == 4)
    few = two.stream(*(Request(1, seed=seed) for seed in range(2)))
    assert until(lambda: under_way(host) == 6), "at most half of the places"
    assert until(lambda: one.engine.max_requests == two.engine.max_requests == 2)
    gate.open()
    assert len(finished(list(few))) == 2
    assert len(finished(list(many))) == 8


def test_no_replica_is_told_and_waited_for(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    rack.host("a")
    client = rack.client()
    assert client.why_not() == ""
    monkeypatch.setattr(pulse, "STALE", 0.2)
    rack.hosts.pop("a").end()
    assert until(lambda: client.why_not() == "none of its replicas answers")
    assert client.engine.max_requests == 1 and client.alive
    stream = client.stream(Request(1))
    assert isinstance(next(stream), Queued)
    rack.host("b")
    assert isinstance(list(stream)[-1], Finished)
    assert client.why_not() == ""
    rack.hosts.pop("b").end()
    stream = client.stream(Request(1))
    monkeypatch.setattr(pulse, "GONE", 0.3)
    (*_, last) = stream
    assert isinstance(last, Failed)
    with pytest.raises(GenerationError, match="no replica answers"):
        client.stream(Request(1))
    client.close()
    assert "looked for again" in client.why_not()
    with pytest.raises(GenerationError, match="was closed"):
        client.stream(Request(1))


def test_a_client_that_is_not_as_its_replicas(rack: Rack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "STALE", 0.2)
    with pytest.raises(GenerationError, match="no replica answers"):
        rack.client()
    rack.host("a", version="2")
    with pytest.raises(GenerationError, match="replica a has version 2 of the model"):
        rack.client()
    rack.hosts.pop("a").end()
    rack.host("b")
    client = rack.client()
    rack.hosts.pop("b").end()
    rack.host("c", version="2")  # while nobody looked
    (event,) = (e for e in client.stream(Request(1)) if isinstance(e, (Failed, Finished)))
    assert isinstance(event, Failed) and "version 1" in str(event.error)


def test_a_pipeline_draws_with_replicas(rack: Rack, tiny_vq: VQ) -> None:
    for name in "ab":
        rack.host(name)
    here, there = (Pipeline(random_model(), tiny_vq, "tiny", "1") for _ in range(2))
    there.use_server(lambda pipe: rack.client(max_waiting=pipe.max_waiting))
    labels = [1, 207, {281: 0.5, 985: 0.5}, 285, 1, 207]
    assert [list(image.tobytes()) for image in there.generate(labels, seed=3)] == [
        list(image.tobytes()) for image in here.generate(labels, seed=3)
    ]
    frames = list(there.stream(1, preview_every=4))
    assert frames[-1].done and frames[0].step == 0
    assert isinstance(here.server, Server)
    here.close()
    first = there.server
    there.close()
    assert there.generate(1)[0].size == (16, 16), "the next picture looks for them again"
    assert there.server is not first
    there.close()
