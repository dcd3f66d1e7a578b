"""Connections that bring nothing are closed, and no others."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from aim.ui.idle import Idle
from pages import Page, until


def connection(request: object) -> Any:
    aborted: list[bool] = []
    loop = SimpleNamespace(call_soon_threadsafe=lambda call: call())
    transport = SimpleNamespace(abort=lambda: aborted.append(True))
    held = {"cycle": request, "loop": loop, "transport": transport, "gone": aborted}
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
