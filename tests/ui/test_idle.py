"""Connections that bring nothing are closed, and no others."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from aim.engine import Request
from aim.ui.idle import Idle, Unheard
from pages import Page, until


def connection(request: object, waiting: int = 0) -> Any:
    aborted: list[bool] = []
    left = [waiting]  # bytes that are not taken yet
    loop = SimpleNamespace(call_soon_threadsafe=lambda call: call())
    transport = SimpleNamespace(
        abort=lambda: aborted.append(True), get_write_buffer_size=lambda: left[0]
    )
    held = {"cycle": request, "loop": loop, "transport": transport, "gone": aborted, "left": left}
    return type("One", (), held)()  # compared by identity, as uvicorn's are


def test_idle_is_who_begins_nothing_for_a_while() -> None:
    over, runs = SimpleNamespace(response_complete=True), SimpleNamespace(response_complete=False)
    new, done, works, again = (connection(one) for one in (None, over, runs, over))
    state = SimpleNamespace(connections={new, done, works, again})
    idle = Idle(SimpleNamespace(server_state=state), 10.0)
    for now in (0.0, 8.0, 10.0):
        assert idle.look(now) == 0
        again.cycle = SimpleNamespace(response_complete=True)  # a request between two looks
    assert idle.look(11.0) == 2
    assert new.gone and done.gone and not works.gone and not again.gone


def test_idle_is_who_takes_nothing_of_what_is_sent() -> None:
    runs = SimpleNamespace(response_complete=False)
    deaf, slow, listens = (connection(runs, left) for left in (70_000, 70_000, 0))
    state = SimpleNamespace(connections={deaf, slow, listens})
    idle = Idle(SimpleNamespace(server_state=state), 10.0)
    for now in (0.0, 8.0):
        assert idle.look(now) == 0
        slow.left[0] -= 1
    assert idle.look(11.0) == 1 and deaf.gone and not slow.gone and not listens.gone


def joined(page: Page, session: str) -> str:
    """Somebody draws slowly, and has not listened yet; the address of what they would hear."""
    api = page.url.rstrip("/") + "/gradio_api"
    index, fn = next((i, fn) for i, fn in page.blocks.fns.items() if fn.api_name == "generate")
    values = [block.value for block in fn.inputs]
    values[:2] = [1, "tiny"]
    body = {"data": values, "fn_index": index, "session_hash": session}
    assert httpx.post(f"{api}/queue/join", json=body).status_code == 200
    return f"{api}/queue/data?session_hash={session}"


def test_the_work_of_who_never_listens_ends(page: Page) -> None:
    page.brake.seconds = 0.1
    line, queue = page.blocks.health.models.line, page.blocks._queue
    unheard = Unheard(queue, 60.0, page.blocks.stop)
    told = joined(page, "deaf")
    listens = joined(page, "listens")
    with httpx.stream("GET", listens, timeout=60) as stream:
        lines = stream.iter_lines()
        next(lines)
        assert until(lambda: page.pipe.server.engine.running == 2)
        assert unheard.look(0.0) == 0
        for _ in range(4):
            next(lines)
        assert unheard.look(50.0) == 0 and line.busy == 2
        for _ in range(4):
            next(lines)
        assert unheard.look(61.0) == 1
        assert until(lambda: page.pipe.server.engine.running == 1 and line.busy == 1, 20)
        heard = httpx.get(told, timeout=60).text
        assert "Nobody listened for 60 s" in heard and "process_generating" not in heard
        page.brake.seconds = 0.0
        assert any("process_completed" in line and '"success":true' in line for line in lines)


def test_who_hangs_up_in_line_gives_up_the_place(page: Page) -> None:
    page.brake.seconds = 0.1
    line, queue = page.blocks.health.models.line, page.blocks._queue
    others = page.pipe.server.stream(*(Request(0, seed=i) for i in range(16)))
    with httpx.stream("GET", joined(page, "leaves"), timeout=60) as stream:
        assert any("Number 1 in line" in told for told in stream.iter_lines())
    event = next(iter(queue.event_ids_to_events.values()))
    assert until(lambda: not event.alive, 20)
    assert line.busy == 1, "there is no news for Gradio to notice by"
    Unheard(queue, 60.0, page.blocks.stop).look(0.0)
    assert until(lambda: line.busy == 0, 5)
    others.close()


def test_headers_that_do_not_end_are_hung_up_on(page: Page) -> None:
    address = urlsplit(page.url)
    idle = Idle(page.blocks.server, 10.0)
    with socket.create_connection((address.hostname, address.port)) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nHost: page\r\nX-Slow: ")
        slow.settimeout(5)
        assert until(lambda: len(page.blocks.server.server_state.connections) > 0)
        idle.look(0.0)
        assert httpx.get(page.url + "healthz").status_code == 200
        assert idle.look(11.0) >= 1
        with pytest.raises(ConnectionError):
            assert slow.recv(100) == b""
            raise ConnectionError("closed")
    assert httpx.get(page.url + "healthz").status_code == 200
