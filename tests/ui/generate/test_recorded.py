"""The recording on the first screen is true to the bundled model, and is shown only with it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aim
import aim.ui
from aim.pipeline import Pipeline
from aim.ui import models as ui_models
from aim.ui import record
from aim.ui.generate import recorded
from aim.ui.generate.recorded import PLAYED, opening, recording


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return aim.load(record.MODEL, device="cpu", dtype="float32")


def test_it_is_what_the_bundled_model_draws(pipe: Pipeline) -> None:
    found = recording()
    assert found.of(pipe), f"run python -m aim.ui.record: it is of {found.model} {found.version}"
    assert tuple((one.label, one.seed) for one in found.drawings) == record.SHOWN
    for one in found.drawings[:2]:
        *_, last = pipe.stream(one.label, seed=one.seed, preview_every=0)
        assert np.array_equal(last.codes, one.codes)


def test_it_is_small(pipe: Pipeline) -> None:
    value, chips = opening(pipe)
    assert value is not None and len(value["colours"]) == PLAYED and value["loop"]
    assert len(chips) == 12
    assert len(recorded.text(recorded.FILE)) < 12_000
    assert len(json.dumps([value, chips])) < 60_000


def test_another_version_shows_nothing(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "version", "0123456789ab")
    assert opening(pipe) == (None, [])


def test_the_command_writes_what_is_read(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "SHOWN", record.SHOWN[:1])
    written = record.record(pipe)
    monkeypatch.setattr(recorded, "text", lambda path: written)
    [one] = recording().drawings
    assert (one.label, one.seed) == record.SHOWN[0] and len(one.codes) == 256


def test_the_first_screen_moves_and_a_picture_draws_its_class(
    pipe: Pipeline, browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ui_models, "load", lambda *_, **__: pipe)  # other tests' page has its own
    page: Any = aim.ui.build(record.MODEL, device="cpu", dtype="float32")
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, **aim.ui.LAUNCH)
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    try:
        tab = context.new_page()
        tab.set_default_timeout(60_000)
        tab.goto(url)
        tab.wait_for_selector("#stage .aim-stage[data-loop=true]")
        shown = "Number(document.querySelector('#stage .aim-stage').dataset.shown)"
        seen = set()
        for _ in range(8):
            seen.add(tab.evaluate(shown))
            time.sleep(0.2)
        assert len(seen) > 4, "nothing moves"
        assert tab.inner_text("#stage .aim-tag").startswith("Recorded: aim-s on ")
        last = tab.locator("#chips button").nth(11).bounding_box()
        assert last["y"] + last["height"] <= 800, "not above the fold"
        tab.locator("#chips button").nth(1).click()
        tab.wait_for_selector("#progress .aim-drawing")
        assert tab.get_by_label("Class", exact=True).input_value() == "king penguin (145)"
        tab.wait_for_selector("#stage .aim-stage[data-loop=false]")
        tab.click("#stop")
        tab.screenshot(path=tmp_path / "drawing.png")
    finally:
        context.close()
        page.close(verbose=False)
