"""The Inside tab: what the model thinks of every code, while it draws and after."""

from __future__ import annotations

from typing import Any

import gradio as gr

from aim.ui.generate.handlers import Actions
from aim.ui.inside.handlers import InsideActions, InsideScreen
from aim.ui.inside.maps import MAPS
from aim.ui.models import Models, class_choices, first_class
from aim.ui.stage.updates import status
from aim.ui.stage.widgets import (
    Choice,
    Shown,
    Status,
    Whole,
    draw_and_stop,
    drawn,
    sampling_boxes,
    seed_and_random,
)

_INTRO = (
    "Before each code, the model holds some codes likely and others not; then one is drawn by "
    "chance. **Draw** a picture and watch beside "
    "it how sure the model was, and how far the class pulled. Click the map, or choose a row and a "
    "column, to see what else it considered."
)


def inside_tab(models: Models, drawing: Actions) -> InsideActions:
    """Lay out the tab inside the current ``gr.Tab`` and connect it; ``drawing`` are the handlers of
    the Generate tab. Returns its own.
    """
    pipe = models.get(models.default)
    grid = pipe.tokenizer.config.grid
    gr.Markdown(_INTRO, elem_classes="aim-about")
    with gr.Row(elem_classes="aim-columns"):
        with gr.Column(scale=4, min_width=300, elem_classes="aim-controls"):
            with gr.Group(elem_classes="aim-first"):
                label = Choice(
                    class_choices(pipe),
                    value=first_class(pipe),
                    label="Class",
                    info="Type to search.",
                    elem_id="inside-class",
                )
            with gr.Row(elem_classes="aim-first"):
                start, stop = draw_and_stop("inside")
            with gr.Group(elem_classes="aim-first"):
                kinds = [(shown.title, name) for name, shown in MAPS.items()]
                kind = gr.Radio(
                    kinds,
                    value="entropy",
                    label="Map",
                    info="Of what was drawn.",
                    elem_id="map-kind",
                )
            with gr.Group(), gr.Row():
                row = Whole(
                    1,
                    precision=0,
                    label="Row",
                    info=f"1 to {grid}, from the top.",
                    elem_id="inside-row",
                    min_width=120,
                )
                column = Whole(
                    1,
                    precision=0,
                    label="Column",
                    info=f"1 to {grid}, from the left.",
                    elem_id="inside-column",
                    min_width=120,
                )
            with gr.Group(), gr.Row():
                seed, random_seed = seed_and_random("inside-")
            with gr.Accordion("Sampling", open=False):
                sampling = sampling_boxes(pipe.sampling)
        with gr.Column(scale=7, min_width=300, elem_classes="aim-result"):
            with gr.Row(elem_classes="aim-pair"):
                with gr.Column(min_width=140):
                    picture = drawn("inside-picture")
                with gr.Column(min_width=140):
                    chart = drawn("map", "A map over the grid of codes; its key stands below")
            key = gr.Markdown(
                MAPS["entropy"].explanation, elem_id="map-key", elem_classes="aim-note"
            )
            progress = Status(
                status("idle", "Pick a class and press Draw"),
                label="Progress",
                elem_id="inside-progress",
            )
            choice = Shown("", elem_id="choice", elem_classes="aim-report")
    notes = gr.State(None)
    screen = InsideScreen(picture, progress, chart, key, choice, notes, start, stop)
    actions = InsideActions(models, drawing.sessions, screen)
    hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    start.click(
        actions.draw,
        inputs_kwargs={
            **{"label": label, "seed": seed, "random_seed": random_seed, "kind": kind},
            **{"row": row, "column": column, **sampling},
        },
        outputs=list(screen),
        concurrency_limit=None,
        **hidden,
    )
    stop.click(drawing.stop, None, None, queue=False, **hidden)
    kind.change(actions.show, [kind, notes], [chart, key], **hidden)
    for box in (row, column):
        box.change(actions.tell, [row, column, notes], [choice], **hidden)
    chart.select(actions.point, None, [row, column], **hidden)
    return actions
