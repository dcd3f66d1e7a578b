"""Stop of a comparison, wherever it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from aim.engine import Request
from aim.pipeline import Pipeline
from aim.settings import Limits
from aim.ui.compare.handlers import CompareActions, CompareScreen
from aim.ui.line import Line
from pages import Brake, until


@pytest.mark.parametrize("kind", ["sweep", "blend"])
def test_one_that_waits_stops_at_once(
    make_pipe: Callable[..., tuple[Pipeline, Brake]], kind: str
) -> None:
    pipe, brake = make_pipe(running=1)
    brake.seconds = 0.05
    other = pipe.server.stream(Request(0))  # takes 13 s
    screen = CompareScreen(gr.HTML(), gr.HTML(), gr.HTML(), (gr.HTML(), gr.HTML()), gr.HTML())
    loaded: Future[Pipeline] = Future()
    loaded.set_result(pipe)
    models: Any = SimpleNamespace(
        default="tiny", wanted=nullcontext, fetch=lambda name: loaded, line=Line(Limits())
    )
    actions, me = CompareActions(models, screen), SimpleNamespace(session_hash="me")
    updates: list[Any] = []
    values = {
        "sweep": ("goldfish", "seed", "1,2", "top_k", "0,5", 0, "tiny"),
        "blend": ("goldfish", "tabby", 3, 7, "tiny"),
    }[kind]
    drawing = threading.Thread(target=lambda: updates.extend(getattr(actions, kind)(*values, me)))
    drawing.start()
    assert until(lambda: pipe.server.engine.waiting > 0)
    actions.stop(me)  # type: ignore[arg-type]
    started = time.monotonic()
    drawing.join(60)
    assert time.monotonic() - started < 3
    assert updates[-1][screen.progress]["text"] == "Stopped"
    assert pipe.server.engine.running == 1 and pipe.server.engine.waiting == 0
    other.close()
    assert until(lambda: pipe.server.engine.idle)
