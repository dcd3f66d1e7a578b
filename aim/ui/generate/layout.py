"""The Generate tab: press the button, watch it being drawn, take the picture home."""

from __future__ import annotations

from typing import Any

import gradio as gr
from gradio.events import api

from aim.ui.assets import text
from aim.ui.drawings import Drawings
from aim.ui.generate.handlers import MOVIES, NO_MOVIE, Actions, Screen
from aim.ui.generate.visit import VisitScreen, collect
from aim.ui.models import Models
from aim.ui.settings.handlers import Boxes, SettingsActions
from aim.ui.stage.stage import Stage
from aim.ui.stage.updates import status
from aim.ui.stage.widgets import Choice, Status, Whole, draw_and_stop, drawn

PREVIEW_EVERY = 8


def generate_tab(
    models: Models,
    drawings: Drawings,
    boxes: Boxes,
    settings: SettingsActions,
    played: dict[str, Any] | None,
) -> Actions:
    """Lay out the tab inside the current ``gr.Tab`` and connect it to the boxes and handlers of the
    settings; ``played`` is what plays before the first click. Returns its handlers.
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

    gr.Markdown(
        "### This visit\nClick a picture to take its settings over.",
        elem_classes=["aim-narrow", "aim-visit"],
    )
    gallery = gr.Gallery(
        label="Pictures of this visit", show_label=False, columns=4, height="auto",
        object_fit="contain", preview=False,
        allow_preview=False, interactive=False, buttons=[], elem_id="visit",
        elem_classes="aim-narrow",
    )  # fmt: skip
    with gr.Row(elem_classes="aim-narrow"):
        pack = gr.Button(
            "Download all (ZIP)", interactive=False, elem_id="zip", size="sm", min_width=120
        )
    names = gr.Textbox(visible="hidden", elem_id="names")

    made, pictures = gr.State(None), gr.State([])
    screen = Screen(picture, progress, png, gif, parameters, start, stop, made, stage)
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
    visit = VisitScreen(gallery, pictures, pack, names, boxes.seed)
    drawing.success(
        lambda made, pictures: collect(visit, drawings, made, pictures),
        [made, pictures],
        list(visit),
        **private,
    )
    pack.click(None, names, None, js=text("generate/zip.js"), **private)
    stop.click(actions.stop, None, None, api_name="stop", queue=False, **hidden)
    gallery.select(settings.chosen, [pictures, boxes.current], boxes.outputs, **private)
    api(actions.classes, api_name="classes")
    return actions
