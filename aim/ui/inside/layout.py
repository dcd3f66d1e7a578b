"""The Inside tab: what the model thinks of every code, while it draws and after."""

from __future__ import annotations

from typing import Any

import gradio as gr

from aim.ui.generate.handlers import Actions
from aim.ui.inside.handlers import InsideActions, InsideScreen
from aim.ui.inside.maps import MAPS
from aim.ui.models import Models
from aim.ui.settings.handlers import Boxes
from aim.ui.stage.updates import status
from aim.ui.stage.widgets import Shown, Status, Whole, draw_and_stop, drawn

_INTRO = (
    "Before each code, the model holds some codes likely and others not; then one is drawn by "
    "chance. **Draw** a picture and watch beside "
    "it how sure the model was, and how far the class pulled. Click the map, or choose a row and a "
    "column, to see what else it considered."
)


def inside_tab(models: Models, drawing: Actions, boxes: Boxes) -> InsideActions:
    """Lay out the tab inside the current ``gr.Tab`` and connect it to the boxes of the settings;
    ``drawing`` are the handlers of the Generate tab. Returns its own.
    """
    pipe = models.get(models.default)
    grid = pipe.tokenizer.config.grid
    gr.Markdown(_INTRO, elem_classes="aim-about")
    with gr.Row(elem_classes="aim-first"):
        start, stop = draw_and_stop("inside")
    kinds = [(shown.title, name) for name, shown in MAPS.items()]
    kind = gr.Radio(
        kinds, value="entropy", label="Map", info="Of what was drawn.", elem_id="map-kind"
    )
    with gr.Row(elem_classes="aim-pair"):
        with gr.Column(min_width=140):
            picture = drawn("inside-picture")
        with gr.Column(min_width=140):
            chart = drawn("map", "A map over the grid of codes; its key stands below")
    key = gr.Markdown(MAPS["entropy"].explanation, elem_id="map-key", elem_classes="aim-note")
    progress = Status(
        status("idle", "Pick a class and press Draw"),
        label="Progress",
        elem_id="inside-progress",
    )
    with gr.Row():
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
    choice = Shown("", elem_id="choice", elem_classes="aim-report")
    notes = gr.State(None)
    screen = InsideScreen(picture, progress, chart, key, choice, notes, start, stop, boxes.seed)
    actions = InsideActions(models, drawing.sessions, screen)
    hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    start.click(
        actions.draw,
        inputs_kwargs={
            **{"label": boxes.label, "model": boxes.model, "kind": kind},
            **{"seed": boxes.seed, "random_seed": boxes.random_seed},
            **{"row": row, "column": column, **boxes.sampling},
        },
        outputs=list(screen),
        concurrency_limit=None,
        **hidden,
    )
    stop.click(drawing.stop, None, None, queue=False, **hidden)
    kind.change(actions.show, [kind, notes], [chart, key], **hidden)
    for box in (row, column):
        box.change(actions.tell, [row, column, notes], [choice], **hidden)
    chart.select(actions.point, notes, [row, column], **hidden)
    return actions
