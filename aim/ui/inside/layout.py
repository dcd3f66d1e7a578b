"""The Inside tab: what the model thinks of every code, while it draws and after."""

from __future__ import annotations

from typing import Any

import gradio as gr

from aim.ui.generate.handlers import Actions
from aim.ui.inside.handlers import InsideActions, InsideScreen
from aim.ui.inside.maps import MAPS
from aim.ui.models import Models
from aim.ui.settings.handlers import Boxes
from aim.ui.stage.stage import Stage
from aim.ui.stage.updates import status
from aim.ui.stage.widgets import Shown, Status, Whole, draw_and_stop

_INTRO = (
    "Before each code, the model holds some codes likely and others not; then one is drawn by "
    "chance. **Draw** a picture and watch beside "
    "it how sure the model was, and how far the class pulled. Point at a code, or click it, to see "
    "what else it considered."
)


class MapStage(Stage):
    """With a map of the codes, one mark in both, and words for the code under the pointer. The
    value has ``map``, as of ``drawn_map``, besides, and ``guesses`` of the codes that follow, in
    colours as theirs; ``mark`` is the ``line`` and ``column`` of a code.
    """

    beside = "inside"

    def __init__(self, *args: Any, mark: dict[str, int] | None = None, **kwargs: Any) -> None:
        self.mark = mark
        super().__init__(*args, mark=mark, **kwargs)


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
    stage = MapStage(elem_id="looked", elem_classes="aim-flush")
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
    screen = InsideScreen(
        stage, progress, key, choice, notes, start, stop, boxes.seed, kind, row, column
    )
    actions = InsideActions(models, drawing.sessions, screen, drawing.drawings)
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
    kind.change(actions.show, [kind, notes], [stage, key], **hidden)
    for box in (row, column):
        box.change(actions.tell, [row, column, notes], [choice, stage], **hidden)
    # whoever goes on before an answer has come is not held up
    stage.click(
        actions.point, None, [row, column], queue=False, trigger_mode="always_last", **hidden
    )
    return actions
