"""The page as a process of its own, started the way a Space starts it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import aim.ui

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def url(tiny_checkpoint: Path, tmp_path: Path) -> Iterator[str]:
    """Where app.py answers, on a tiny model."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    chosen = {
        "AIM_MODEL": str(tiny_checkpoint),
        "AIM_DEVICE": "cpu",
        "GRADIO_SERVER_PORT": str(port),
    }
    log = tmp_path / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=ROOT, env=os.environ | chosen, stdout=out, stderr=out
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(address, timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.fail(f"no answer at {address}: {log.read_text()}")
        yield address
    finally:
        process.terminate()
        process.wait(30)


def test_app_serves_the_page_on_the_port_that_the_environment_names(url: str) -> None:
    with urllib.request.urlopen(f"{url}/config", timeout=10) as answer:
        assert json.load(answer)["title"] == "AiM"
    with urllib.request.urlopen(f"{url}/gradio_api/info", timeout=10) as answer:
        assert "/generate" in json.load(answer)["named_endpoints"]


@pytest.mark.parametrize(
    ("terminal", "platform", "display", "opened"),
    [
        (True, "linux", ":0", True),
        (True, "linux", "", False),
        (False, "linux", ":0", False),
        (True, "darwin", "", True),
        (False, "win32", "", False),
    ],
)
def test_a_browser_opens_where_somebody_can_see_it(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, platform: str, display: str, opened: bool
) -> None:
    asked: list[bool] = []
    page = SimpleNamespace(launch=lambda inbrowser, **_: asked.append(inbrowser))
    monkeypatch.setattr(aim.ui, "build", lambda *_, **__: page)
    monkeypatch.setattr(
        aim.ui,
        "sys",
        SimpleNamespace(platform=platform, stdout=SimpleNamespace(isatty=lambda: terminal)),
    )
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    aim.ui.launch()
    assert asked == [opened]
