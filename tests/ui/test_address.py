"""Where the page listens: what is asked for works, or is refused in a sentence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

import gradio as gr
import httpx
import pytest

from aim.errors import AimError
from aim.ui import address
from aim.ui.page import Page


@pytest.mark.parametrize(
    ("given", "taken"),
    [(None, None), ("0.0.0.0", "0.0.0.0"), ("::1", "[::1]"), ("[::]", "[::]"), ("box", "box")],
)
def test_an_ipv6_address_stands_in_brackets(given: str | None, taken: str | None) -> None:
    assert address.host(given) == taken


@pytest.mark.parametrize(
    ("given", "taken"),
    [("", ""), ("/", ""), ("aim", "/aim"), ("/aim/", "/aim"), ("https://a.b/c/", "https://a.b/c")],
)
def test_a_root_path_has_one_slash_before_it(given: str, taken: str) -> None:
    assert address.root(given) == taken


@pytest.mark.parametrize("before", [{}, {"no_proxy": "corp"}, {"no_proxy": "*", "NO_PROXY": "*"}])
def test_this_machine_needs_no_proxy(before: dict[str, str]) -> None:
    environ = {"http_proxy": "http://127.0.0.1:9", **before}
    address.reach_itself(environ)
    told = environ["no_proxy"].split(",")
    assert told == ["*"] or {*filter(None, [before.get("no_proxy")]), *address.LOCAL} <= {*told}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A page with nothing on it, in an environment that does its worst."""
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("GRADIO_ROOT_PATH", "aim")
    with Page(analytics_enabled=False) as page:
        gr.Markdown("Here")
    yield page
    page.close(verbose=False)


def test_it_starts_behind_a_proxy_below_a_path_on_ipv6(bare: Any) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    _, url, _ = bare.launch(server_name="::1", prevent_thread_lock=True, quiet=True, ssr_mode=False)
    assert url.startswith("http://[::1]:")
    assert bare.root_path == "/aim" and httpx.get(url, trust_env=False).status_code == 200


@pytest.mark.parametrize("name", ["203.0.113.7", "127.0.0.1"])
def test_what_cannot_be_listened_on_is_said(bare: Any, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AimError, match=f"port {port} cannot be had on {name}"):
            bare.launch(server_name=name, server_port=port, prevent_thread_lock=True, quiet=True)


@pytest.mark.parametrize("command", [["-m", "aim", "demo"], ["app.py"]])
def test_a_port_that_is_none_is_a_sentence(command: list[str]) -> None:
    environ = {**os.environ, "GRADIO_SERVER_PORT": "abc"}
    done = subprocess.run(
        [sys.executable, *command], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode and "Traceback" not in done.stderr
    assert "GRADIO_SERVER_PORT is 'abc'; it must be a whole number in [1, 65535]" in done.stderr
