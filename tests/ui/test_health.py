"""What a supervisor asks: /healthz, /readyz, /metrics; and the flag of the MCP server."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from prometheus_client import generate_latest

import aim.ui
from aim.errors import AimError, GenerationError
from aim.pipeline import Pipeline
from aim.settings import Limits
from aim.ui.health import Health
from aim.ui.line import Line
from pages import Brake, Page, until


def get(page: Page, path: str) -> httpx.Response:
    return httpx.get(page.url.rstrip("/") + path, timeout=10)


def metric(page: Page, name: str) -> float:
    text = get(page, "/metrics").text
    return float(
        next(line for line in text.splitlines() if re.match(rf"{name}(\{{|\s)", line)).rpartition(
            " "
        )[2]
    )


def test_up_and_ready(page: Page) -> None:
    assert get(page, "/healthz").json() == {"status": "up"}
    assert until(lambda: get(page, "/readyz").status_code == 200)
    assert get(page, "/readyz").json() == {"status": "ready"}


def test_not_ready_while_the_model_warms_up(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page.blocks, "health", Health(page.blocks.health.models))  # type: ignore[attr-defined]
    found = get(page, "/readyz")
    assert (found.status_code, found.json()["reason"]) == (
        503,
        "the model is loading or warming up",
    )
    assert get(page, "/healthz").status_code == 200
    assert metric(page, "aim_ready") == 0


def test_metrics_count_what_was_drawn(page: Page) -> None:
    assert until(lambda: get(page, "/readyz").status_code == 200)
    before = {
        name: metric(page, f"aim_{name}_total")
        for name in ("requests", "finished", "codes", "cancelled", "seconds")
    }
    page.pipe.generate(["goldfish", "tabby"])
    stream = page.pipe.stream("goldfish", preview_every=1)
    page.brake.seconds = 0.02
    for frame in stream:
        if frame.step:
            break
    assert metric(page, "aim_running") == 1
    stream.close()
    page.brake.seconds = 0.0
    assert page.settle()
    assert until(lambda: metric(page, "aim_cancelled_total") == before["cancelled"] + 1)
    assert metric(page, "aim_requests_total") == before["requests"] + 3
    assert metric(page, "aim_finished_total") == before["finished"] + 2
    assert metric(page, "aim_codes_total") == before["codes"] + 512
    assert metric(page, "aim_seconds_total") > before["seconds"]
    assert (
        metric(page, "aim_running")
        == metric(page, "aim_waiting")
        == metric(page, "aim_failed_total")
        == 0
    )
    assert metric(page, "aim_up_seconds") > 0


def test_metrics_start_no_engine(make_pipe: Callable[..., tuple[Pipeline, Brake]]) -> None:
    pipe, _ = make_pipe()
    pipe._server = None
    models: Any = SimpleNamespace(loaded=[pipe], line=Line(Limits()))
    lines = generate_latest(Health(models)).decode().splitlines()
    assert pipe.started is None
    assert 'aim_requests_total{model="tiny"} 0.0' in lines
    assert 'aim_running{model="tiny"} 0.0' in lines


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_engine_is_told_and_another_one_begins(
    make_pipe: Callable[..., tuple[Pipeline, Brake]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, brake = make_pipe()
    health = Health(cast(Any, SimpleNamespace(loaded=[pipe], line=Line(Limits()))))
    health.warm.set()
    assert health.why_not() == ""
    brake.seconds = 0.01
    server, stream = pipe.server, pipe.stream("goldfish", preview_every=1)
    next(stream), next(stream)
    monkeypatch.setattr(server.engine, "step", lambda: sys.exit(1))
    assert until(lambda: not server.alive)
    with pytest.raises(GenerationError, match="thread has ended, and with it this drawing"):
        list(stream)
    assert health.why_not() == "tiny: its engine has ended; another one begins"
    assert until(lambda: health.why_not() == "")
    assert pipe.server is not server
    brake.seconds = 0.0
    (image,) = pipe.generate("goldfish")
    pipe.close()
    health.models.line.ending = True
    assert health.why_not() == "the server is about to end"
    assert image.size == (64, 64)


def test_a_first_drawing_that_failed_is_told_and_tried_again(
    make_pipe: Callable[..., tuple[Pipeline, Brake]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, _ = make_pipe()
    models = SimpleNamespace(loaded=[pipe], line=Line(Limits()), default="", get=lambda _: pipe)
    health = Health(cast(Any, models))
    with monkeypatch.context() as broken:
        broken.setattr(pipe.model, "step", lambda *_, **__: 1 / 0)
        health.warm_up()
        assert health.warming is not None
        health.warming.join(20)
    assert health.why_not() == "the first drawing failed, as the log says; it is tried again"
    assert until(lambda: health.why_not() == "")
    pipe.close()


def test_metrics_are_prometheus_text(page: Page) -> None:
    found = get(page, "/metrics")
    assert found.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = found.text.splitlines()
    for line in lines:
        assert re.fullmatch(
            r"# (HELP|TYPE) aim_[a-z_]+ "
            r'.+|aim_[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? [0-9.e+-]+',
            line,
        ), line
    assert any(
        'aim_model_info{device="cpu",model="tiny",package=' in line
        and 'version="0123456789ab"' in line
        for line in lines
    )


def test_they_answer_while_the_model_draws(page: Page) -> None:
    page.brake.seconds = 0.02
    stream = page.pipe.stream("goldfish", preview_every=1)
    for frame in stream:
        if frame.step:
            break
    took = []
    for _ in range(10):
        started = time.monotonic()
        assert get(page, "/healthz").status_code == 200
        took.append(time.monotonic() - started)
    stream.close()
    assert sorted(took)[5] < 1.0, "they do not wait for a drawing of 5 seconds"


def test_the_mcp_server_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.setattr(aim.ui, "find_spec", lambda name: None)
    monkeypatch.setattr(aim.ui, "build", lambda *a, **k: pytest.fail("nothing is built"))
    with pytest.raises(
        AimError, match=r'the MCP server needs the package mcp: pip install "gradio\[mcp\]"'
    ):
        aim.ui.launch(mcp=True)


def test_the_flag_reaches_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(aim.ui, "serve", lambda page, **settings: asked.update(settings))
    monkeypatch.setattr(aim.ui, "find_spec", lambda name: object())
    monkeypatch.setattr(aim.ui, "build", lambda *a, **k: None)
    aim.ui.launch(mcp=True)
    assert asked["mcp_server"] is True
    aim.ui.launch()
    assert asked["mcp_server"] is False
