"""Replicas on a tiny model, and a client of theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from aim.engine import Engine, Server
from aim.models.aim.model import AiM
from aim.serving import pulse
from aim.serving.replicas import Replicas
from tests.serving.sockets import Host, Sockets
from tests.tiny import TINY, random_model
from tests.waiting import until


@dataclass
class Rack:
    """Replicas, each a model that may be made to wait before every step, and their clients."""

    folder: Path
    hosts: dict[str, Host] = field(default_factory=dict)
    clients: list[Replicas] = field(default_factory=list)

    def host(self, name: str, places: int = 2, model: AiM | None = None, **more: Any) -> Host:
        server = Server(Engine(model or random_model(), places, 64))
        self.hosts[name] = Host(self.folder / name, server, **more)
        return self.hosts[name]

    def client(self, **more: Any) -> Replicas:
        self.clients.append(Replicas(Sockets(self.folder), TINY, "1", **more))
        return self.clients[-1]

    @property
    def idle(self) -> bool:
        return all(host.server.engine.idle for host in self.hosts.values())


@pytest.fixture
def rack(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rack]:
    monkeypatch.setattr(pulse, "BEAT", 0.05)
    monkeypatch.setattr("aim.serving.replicas.BEAT", 0.05)
    with TemporaryDirectory() as folder:  # the name of a socket is short
        rack = Rack(Path(folder))
        yield rack
        for client in rack.clients:
            client.close()
            assert not client.alive
            assert client._fleet.closed  # type: ignore[attr-defined]
        assert until(lambda: rack.idle), "nothing is left that nobody hears of"
        for host in rack.hosts.values():
            host.end()


@pytest.fixture
def pictures() -> Callable[[list[Any]], list[list[int]]]:
    """The codes that one engine draws of requests."""

    def draw(requests: list[Any]) -> list[list[int]]:
        codes = {
            event.request_id: event.codes.tolist()
            for event in Engine(random_model(), 4).run(requests)
            if hasattr(event, "codes")
        }
        return [codes[request.id] for request in requests]

    return draw
