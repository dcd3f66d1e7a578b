"""Replicas in processes of their own, one of which is killed while it draws."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from aim.config import SamplingParams
from aim.engine import Cancelled, Engine, Finished, Progress, Request, Server
from aim.serving.replicas import Replicas
from tests.launching import forking
from tests.serving.sockets import Sockets, host
from tests.tiny import random_model
from tests.waiting import until

PLACES, CODES = 4, 64


def make() -> Server:
    torch.set_num_threads(1)
    return Server(Engine(model(), PLACES, 64))


def model() -> Any:
    return random_model(num_tokens=CODES)


@pytest.fixture
def replicas() -> Iterator[tuple[Replicas, Any]]:
    """Two, and what kills one."""
    with TemporaryDirectory() as folder:
        there = Path(folder)
        processes = {name: forking.Process(target=host, args=(there / name, make)) for name in "ab"}
        for process in processes.values():
            process.start()
        assert until(lambda: len(list(there.iterdir())) == 2, 60)
        client = Replicas(Sockets(there), model().config, "1")

        def kill(name: str) -> None:
            (there / name).unlink()
            os.kill(processes[name].pid or 0, signal.SIGKILL)

        yield client, kill
        client.close()
        for process in processes.values():
            process.kill()
            process.join()


def test_nothing_is_lost_or_wrong_when_a_replica_is_killed(replicas: tuple[Replicas, Any]) -> None:
    client, kill = replicas
    params = [SamplingParams(cfg_scale=1 + seed % 3) for seed in range(40)]
    asked = [Request(seed % 5, params[seed], seed, preview_every=1) for seed in range(40)]
    alone = {
        event.request_id: event.codes.tolist()
        for event in Engine(model(), 8, 64).run(asked)
        if isinstance(event, Finished)
    }
    wrong: list[str] = []
    ended: list[type] = []

    def draw(requests: list[Request]) -> None:
        steps = dict.fromkeys((request.id for request in requests), 0)
        for event in client.stream(*requests):
            if isinstance(event, (Progress, Finished)):
                codes = event.codes.tolist()
                if codes != alone[event.request_id][: len(codes)]:
                    wrong.append(f"codes of {event}")
                if len(codes) <= steps[event.request_id]:
                    wrong.append(f"{len(codes)} after {steps[event.request_id]}")
                steps[event.request_id] = len(codes)
            if isinstance(event, (Finished, Cancelled)):
                ended.append(type(event))

    clients = [threading.Thread(target=draw, args=(asked[i::8],)) for i in range(8)]
    for one in clients:
        one.start()
    assert until(lambda: client.tally.finished >= 4, 60)
    kill("a")
    for one in clients:
        one.join(60)
    assert wrong == []
    assert ended == [Finished] * 40
    tally = client.tally
    assert (tally.finished, tally.failed, tally.cancelled) == (40, 0, 0)
    assert tally.restarted > 0, "it drew something when it was killed"
    assert until(lambda: len(client.reports) == 1)
