"""What is let go is freed at once: pools and weights do not wait for a collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aim.bench import race, racers
from aim.bench.runs import Stopped
from aim.engine import Engine, Request, Server
from aim.engine.backend import pick
from aim.models.vq.model import VQ
from aim.pipeline import Pipeline
from aim.ui.race.measuring import Measurement
from tests.tiny import random_gpt, random_model


@pytest.fixture(autouse=True)
def no_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    gc.disable()
    monkeypatch.setattr(gc, "collect", lambda *_: 0)
    yield
    gc.enable()


def left(make: Callable[[], tuple[Any, ...]]) -> list[str]:
    """The kinds of what ``make`` returned that is still there when nobody holds it."""
    made = make()
    watched = [(type(one).__name__, weakref.ref(one)) for one in made]
    del made
    return [name for name, one in watched if one() is not None]


@pytest.mark.parametrize("backend", ["eager", "cpu"])
def test_an_engine(backend: str) -> None:
    def make() -> tuple[Any, ...]:
        chosen = pick(random_model(), backend)
        engine = chosen.engine(2)
        list(engine.run([Request(0)]))
        return engine, engine._runner, engine._runner._state, chosen.model

    assert left(make) == []


def test_a_server_and_a_pipeline(tiny_vq: VQ) -> None:
    def make() -> tuple[Any, ...]:
        pipe = Pipeline(random_model(), tiny_vq, "tiny")
        pipe.generate(["goldfish"])
        server = pipe.server
        pipe.close()
        return pipe, pipe.model, server, server.engine, server.engine._runner

    assert left(make) == []
    assert left(lambda: (server := Server(Engine(random_model(), 1)), server.close())[:1]) == []


def test_a_race_and_one_that_fails(tiny_vq: VQ, monkeypatch: pytest.MonkeyPatch) -> None:
    engines: list[Any] = []
    really = racers.RacerRun.__init__

    def init(self: Any, *args: Any) -> None:
        really(self, *args)
        engines.append(weakref.ref(self.engine._runner))

    monkeypatch.setattr(racers.RacerRun, "__init__", init)
    pipes = [Pipeline(random_model(), tiny_vq, "aim-t"), Pipeline(random_gpt(), tiny_vq, "gpt-t")]
    race.race(pipes, batch=1, laps=5, bandwidth=1e10)
    assert [one() for one in engines] == [None, None]
    engines.clear()

    def fails(run: Measurement) -> None:
        race.race(pipes, batch=1, laps=5, bandwidth=1e10, stop=lambda: len(engines) == 2)

    with pytest.raises(Stopped):
        measurement = Measurement()
        assert not list(measurement.turn())
        for _ in measurement.run(fails):
            pass
    assert len(engines) == 2
    assert [one() for one in engines] == [None, None]
