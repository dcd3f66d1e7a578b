"""The Generate tab: press the button, watch it being drawn, take the picture home."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.events import api

from aim.ui.drawings import Drawings
from aim.ui.generate.handlers import MOVIES, NO_MOVIE, Actions, Screen
from aim.ui.models import Models
from aim.ui.settings.handlers import Boxes
from aim.ui.stage.stage import Stage
from aim.ui.stage.updates import status
from aim.ui.stage.widgets import Choice, Status, Whole, draw_and_stop, drawn

PREVIEW_EVERY = 8


def generate_tab(
    models: Models,
    drawings: Drawings,
    boxes: Boxes,
    played: dict[str, Any] | None,
) -> Actions:
    """Lay out the tab inside the current ``gr.Tab`` and connect it to the boxes of the settings;
    ``played`` is what plays before the first click. Returns its handlers.
    """
    with gr.Row(elem_classes="aim-first"):
        start, stop = draw_and_stop("generate", "Generate")
        boxes.pictures.render()
    stage = Stage(played, elem_id="stage", elem_classes="aim-flush")
    progress = Status(
        status("idle", "Pick a class and press Generate"),
        label="Progress",
        elem_id="progress",
    )
    # what a program gets; the page has them on the stage
    with gr.Row(visible=False):
        picture = drawn("picture")
        png, gif = gr.DownloadButton("PNG"), gr.DownloadButton("GIF")
        movie = Choice(list(MOVIES), value=NO_MOVIE, label="Movie")
        preview_every = Whole(PREVIEW_EVERY, precision=0, label="Codes per preview")
    with gr.Accordion("Parameters (also inside the PNG)", open=False, elem_classes="aim-narrow"):
        parameters = gr.JSON(label="Parameters", show_label=False, elem_id="parameters")
    screen = Screen(picture, progress, png, gif, parameters, start, stop, stage)
    actions = Actions(models, screen, drawings)
    # by name; in the order of the API, at whose end new ones come
    inputs: dict[str, Any] = {
        "label": boxes.label,
        "model": boxes.model,
        **{name: boxes.sampling[name] for name in ("cfg_scale", "temperature", "top_k", "top_p")},
        "seed": boxes.seed,
        "random_seed": boxes.random_seed,
        "preview_every": preview_every,
        "count": boxes.pictures,
        "movie": movie,
        **boxes.sampling,
    }
    hidden: dict[str, Any] = {"show_progress": "hidden"}
    private: dict[str, Any] = {**hidden, "api_visibility": "private"}
    drawing = start.click(
        actions.generate,
        inputs_kwargs=inputs,
        outputs=list(actions.screen),
        validator=actions.check,
        api_name="generate",
        concurrency_limit=None,
        **hidden,
    )
    # the box shows the seed that was drawn
    drawing.success(
        None, [parameters, boxes.seed], boxes.seed,
        js="(parameters, seed) => parameters?.seed ?? seed", **private
    )  # fmt: skip
    stop.click(actions.stop, None, None, api_name="stop", queue=False, **hidden)
    api(actions.classes, api_name="classes")
    return actions
