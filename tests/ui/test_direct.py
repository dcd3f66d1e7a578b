"""Values that need nothing done are taken and sent as Gradio would, without its threads."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gradio as gr
import pytest
from gradio.state_holder import SessionState

from aim.ui import direct
from aim.ui.stage.reel import served
from aim.ui.stage.updates import keep
from pages import Page


def generate(page: Page) -> Any:
    return next(fn for fn in page.blocks.fns.values() if fn.api_name == "generate")


def by_gradio(work: Any) -> Any:
    with ThreadPoolExecutor(1) as own:  # a browser's test has left its loop running in this thread
        return own.submit(asyncio.run, work).result()


@pytest.fixture
def update(page: Page) -> dict[Any, Any]:
    """Of a drawing: every kind of value that one sends."""
    picture, progress, png, gif, parameters, start, _stop, stage = generate(page).outputs
    path = keep(b"a picture", "a picture.png", picture)
    assert path
    return {
        picture: path,
        progress: {"state": "drawing", "text": "<b>1 / 256</b>", "step": 1},
        png: path,
        gif: None,
        parameters: {"seed": 3, "class_name": "tench"},
        start: gr.update(interactive=False),
        stage: {"run": "1", "image": served(path), "made": [{"codes": [1, 2]}]},
    }


def test_what_is_sent_is_what_gradio_would_send(page: Page, update: dict[Any, Any]) -> None:
    blocks: Any = page.blocks
    fn = generate(page)
    mine, theirs = SessionState(blocks), SessionState(blocks)
    sent = direct.sent(fn, update, mine, blocks._place)
    assert sent is not None
    assert sent == by_gradio(gr.Blocks.postprocess_data(blocks, fn, update, theirs))
    for block in update:
        if not isinstance(block, gr.Button):
            values = [
                state.config_values[block._id]["props"].get("value") for state in (mine, theirs)
            ]
            assert values[0] == values[1]  # by which a file on a screen is kept


def test_what_an_update_leaves_out_stays_on_the_screen(page: Page, update: dict[Any, Any]) -> None:
    blocks: Any = page.blocks
    fn, state = generate(page), SessionState(blocks)
    picture, progress, *_ = fn.outputs
    assert direct.sent(fn, update, state, blocks._place)
    assert direct.sent(fn, {progress: {"state": "starting"}}, state, blocks._place)
    assert state.config_values[picture._id]["props"]["value"]["path"] == update[picture]
    assert state.config_values[progress._id]["props"]["value"] == {"state": "starting"}


@pytest.mark.parametrize("other", ["file", "nested file", "value", "list", "slider"])
def test_what_needs_more_is_left_to_gradio(
    page: Page, update: dict[Any, Any], other: str, tmp_path: Any
) -> None:
    blocks: Any = page.blocks
    fn: Any = generate(page)
    picture, _, _, _, _, start, _, stage = fn.outputs
    elsewhere = str(tmp_path / "picture.png")
    predictions: Any = update
    if other == "file":
        update[picture] = elsewhere
    elif other == "nested file":
        update[stage] = {"image": served(elsewhere)}
    elif other == "value":
        update[start] = gr.update(value="Draw again")
    elif other == "list":
        predictions = list(update.values())
    else:
        fn = next(
            fn for fn in blocks.fns.values() if any(isinstance(b, gr.Slider) for b in fn.outputs)
        )
        predictions = {fn.outputs[-1]: 3}
    assert direct.sent(fn, predictions, None, blocks._place) is None


def test_what_is_taken_is_what_gradio_would_take(page: Page) -> None:
    blocks: Any = page.blocks
    fn = generate(page)
    values = [block.value for block in fn.inputs]
    values[:2] = ["goldfish", "tiny"]
    taken = direct.taken(fn, values)
    assert taken is not None
    assert taken == by_gradio(gr.Blocks.preprocess_data(blocks, fn, values, SessionState(blocks)))


def test_a_file_that_is_given_is_checked_by_gradio(page: Page) -> None:
    fn = generate(page)
    values = [block.value for block in fn.inputs]
    values[0] = {"path": os.devnull, "meta": {"_type": "gradio.FileData"}}
    assert direct.taken(fn, values) is None
    with_upload = next(
        fn for fn in page.blocks.fns.values() if any(isinstance(b, gr.File) for b in fn.inputs)
    )
    assert direct.taken(with_upload, [None] * len(with_upload.inputs)) is None
