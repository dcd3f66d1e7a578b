"""The page as a process of its own, started the way a Space starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import aim.ui
from aim.ui.line import ENDING
from tests.waiting import until

ROOT = Path(__file__).resolve().parent.parent


# a step takes long enough for a drawing to be met on its way
SLOW = """
import runpy, time
from aim.models.aim.model import AiM
really = AiM.step
AiM.step = lambda *args: (time.sleep(0.15), really(*args))[1]
"""
# two replicas behind sockets of this machine in place of Ray's
REPLICAS = """
from pathlib import Path
from tempfile import TemporaryDirectory
from aim.pipeline import load
from aim.serving import ray
from aim.serving.replicas import Replicas
from tests.serving.sockets import Host, Sockets
def start(pipe, plan):
    folder = Path(place.name)
    pipes.extend(load(plan.source, "cpu", backend="eager") for _ in range(2))
    hosts.extend(Host(folder / f"{i}", one.server, pipe.version) for i, one in enumerate(pipes))
    return Replicas(Sockets(folder), pipe.model.config, pipe.version, pipe.max_waiting)
place, pipes, hosts, ray._start = TemporaryDirectory(), [], [], start
"""
RUN = 'runpy.run_path("app.py", run_name="__main__")'


@contextmanager
def serving(
    model: Path, folder: Path, replicas: bool = False, **more: str
) -> Iterator[tuple[Any, str]]:
    """app.py on a tiny, slow model, and where it answers."""
    start = SLOW + REPLICAS + RUN if replicas else SLOW + RUN
    more |= {"AIM_REPLICAS": "2"} if replicas else {}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    chosen = {
        "AIM_MODEL": str(model),
        "AIM_DEVICE": "cpu",
        "AIM_BACKEND": "eager",
        "GRADIO_SERVER_PORT": str(port),
        **more,
    }
    log = folder / "log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", start],
            cwd=ROOT, env=os.environ | chosen, stdout=out, stderr=out,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            with suppress(httpx.HTTPError):
                if httpx.get(f"{address}/readyz").status_code == 200:
                    break
            time.sleep(0.2)
        else:
            pytest.fail(f"no answer at {address}: {log.read_text()}")
        yield process, address
    finally:
        process.kill()
        process.wait(30)


@pytest.fixture(scope="module")
def app(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, str]]:
    with serving(tiny_checkpoint, tmp_path_factory.mktemp("app")) as found:
        yield found


def test_app_serves_the_page_on_the_port_that_the_environment_names(app: tuple[Any, str]) -> None:
    _, url = app
    assert httpx.get(f"{url}/config").json()["title"] == "AiM"
    assert "/generate" in httpx.get(f"{url}/gradio_api/info").json()["named_endpoints"]


def test_told_to_end_it_lets_who_draws_finish(app: tuple[Any, str]) -> None:
    process, url = app
    call = f"{url}/gradio_api/call/generate"
    event = httpx.post(call, json={"data": ["goldfish"]}).json()["event_id"]
    with httpx.stream("GET", f"{call}/{event}", timeout=60) as stream:
        lines = stream.iter_lines()
        assert any('"drawing"' in line for line in lines)
        process.send_signal(signal.SIGTERM)
        while (ready := httpx.get(f"{url}/readyz")).status_code == 200:
            time.sleep(0.02)
        assert "about to end" in ready.json()["reason"]
        late = httpx.post(call, json={"data": ["goldfish"]}).json()["event_id"]
        assert "about to end" in httpx.get(f"{call}/{late}").text
        rest = list(lines)
    assert "event: complete" in rest
    last = json.loads(next(line for line in reversed(rest) if line.startswith("data: "))[6:])
    assert last[1]["state"] == "done"
    assert process.wait(30) == 0


@pytest.mark.parametrize("replicas", [False, True])
def test_told_to_end_it_says_goodbye_to_who_is_left(
    replicas: bool, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with serving(tiny_checkpoint, tmp_path, replicas, AIM_DRAIN_SECONDS="0") as (process, url):
        call, names = f"{url}/gradio_api/call", ["generate"] * 4 + ["sweep"]
        asked = [httpx.post(f"{call}/{one}", json={"data": ["goldfish"]}).json() for one in names]
        heard: list[list[str]] = [[] for _ in names]

        def listen(i: int) -> None:
            place = f"{call}/{names[i]}/{asked[i]['event_id']}"
            with httpx.stream("GET", place, timeout=60) as stream:
                heard[i].extend(stream.iter_lines())

        listeners = [threading.Thread(target=listen, args=(i,)) for i in range(len(names))]
        for one in listeners:
            one.start()
        assert until(lambda: all("event: generating" in lines for lines in heard), 60)
        process.send_signal(signal.SIGTERM)
        for one in listeners:
            one.join(30)
        assert process.wait(30) == 0
    for lines in heard:
        *_, kind, data, _ = lines
        assert kind == "event: complete"
        told = json.loads(data.removeprefix("data: "))[1]
        assert (told["state"], told["text"]) == ("stopped", ENDING) and told["step"] < told["total"]
    said = (tmp_path / "log").read_text()
    assert f"{len(names)} drawings were stopped" in said and "Traceback" not in said


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
    monkeypatch.setattr(aim.ui, "build", lambda *_, **__: None)
    monkeypatch.setattr(aim.ui, "serve", lambda _, inbrowser, **__: asked.append(inbrowser))
    monkeypatch.setattr(
        aim.ui,
        "sys",
        SimpleNamespace(platform=platform, stdout=SimpleNamespace(isatty=lambda: terminal)),
    )
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    aim.ui.launch()
    assert asked == [opened]
