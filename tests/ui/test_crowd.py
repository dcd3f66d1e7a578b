"""What a crowd gets of the page: measured through the page's own queue, told as a table and a line
of JSON.
"""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from aim.errors import AimError
from aim.ui import crowd
from aim.ui.stage.drawing import MIN_FPS
from aim.ui.visitors import _visit
from pages import Page


def test_it_is_measured_and_told(page: Page) -> None:
    found, machine = crowd.crowd("tiny", "cpu", "auto", "eager", 2, 6.0)
    assert found.pictures_a_second > 0 and found.alone > 0 and found.wrong == 0
    assert 0 < found.first_ms_median <= found.first_ms_p95
    assert found.health_ms_p95 > 0
    console = Console(width=120, record=True, quiet=True)
    console.print(crowd.as_table(found, machine))
    assert json.loads(crowd.as_json(found, machine))["crowd"]["clients"] == 2


def test_a_picture_costs_few_events_and_bytes(page: Page) -> None:
    page.brake.seconds = 0.004  # a second a picture
    index, fn = next((i, f) for i, f in page.blocks.fns.items() if f.api_name == "generate")
    values = [block.value for block in fn.inputs]
    values[:2] = [1, "tiny"]
    visit = _visit(page.url.rstrip("/"), index, 1, 0.1, values)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as own:  # a browser's test has left its loop running in this thread
        found = json.loads(own.submit(asyncio.run, visit).result())
    late = max(0.0, time.monotonic() - began - 4)  # on a machine that does other things, too
    assert not found["wrong"]
    assert len(found["first"]) == 1
    assert 5 <= found["events"][0] <= 30 + MIN_FPS * late
    assert found["bytes"][0] <= 30_000


def test_a_lost_picture_is_an_error(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd, "alone", lambda *_: 1.0)
    monkeypatch.setattr(page.pipe, "colours", lambda: 1 / 0)
    with pytest.raises(AimError, match="drawings failed"):
        crowd.crowd("tiny", "cpu", "auto", "eager", 1, 1.0)
