"""The Explore tab: take a picture back to any row and go another way; draw the rest of a picture of
one's own.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from aim.ui.explore.branches import Tree
from aim.ui.explore.completion import Completion
from aim.ui.explore.handlers import ExploreActions, ExploreScreen
from aim.ui.generate.handlers import Actions
from aim.ui.models import Models
from aim.ui.settings.handlers import Boxes
from aim.ui.stage.stage import Stage
from aim.ui.stage.updates import status
from aim.ui.stage.widgets import Given, Range, Status, Whole, draw_and_stop

_INTRO = (
    "A picture is drawn row by row, and every row follows from those above it. **Draw** one, click "
    "it where to cut it, and change the class, the seed or the guidance: the rows above are read "
    "in one pass, and the rest is drawn anew. Or give a picture of your own, to be finished."
)


class CutStage(Stage):
    """Where a click on a line cuts the picture; ``cut`` is how many lines stay."""

    beside = "explore"

    def __init__(self, *args: Any, cut: int = 0, **kwargs: Any) -> None:
        self.cut = cut
        super().__init__(*args, cut=cut, **kwargs)


def explore_tab(models: Models, drawing: Actions, boxes: Boxes) -> ExploreActions:
    """Lay out the tab inside the current ``gr.Tab`` and connect it to the boxes of the settings;
    ``drawing`` are the handlers of the Generate tab. Returns its own.
    """
    pipe = models.get(models.default)
    grid = pipe.tokenizer.config.grid
    gr.Markdown(_INTRO, elem_classes="aim-about")
    with gr.Row(elem_classes="aim-first"):
        start, stop = draw_and_stop("explore")
    rows = Range(
        0,
        grid - 1,
        0,
        step=1,
        label="Rows kept",
        info="Of the picture chosen; 0 draws a new one.",
        elem_id="rows-kept",
    )
    stage = CutStage(elem_id="explored", elem_classes="aim-flush")
    picture = gr.Image(visible=False, format="png", type="filepath", label="Picture")
    progress = Status(
        status("idle", "Press Draw, or give a picture"),
        label="Progress",
        elem_id="explore-progress",
    )
    gr.Markdown(
        "Pictures that grew out of each other: click one to go on from it.",
        elem_classes=["aim-narrow", "aim-note"],
    )
    grown = Tree(elem_id="branches", elem_classes=["aim-narrow", "aim-flush"])
    given = Given(
        label="A picture of your own, to be finished",
        type="filepath",
        file_types=["image"],
        elem_id="given",
        height=130,
    )
    branches, chosen = gr.State([]), gr.State(0)
    screen = ExploreScreen(stage, progress, grown, rows, branches, chosen, start, stop, boxes.seed)
    actions = ExploreActions(models, drawing.sessions, screen, drawing.drawings)
    hidden: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    inputs: dict[str, Any] = {
        **{"label": boxes.label, "model": boxes.model, "rows": rows},
        **{"seed": boxes.seed, "random_seed": boxes.random_seed},
        **{"branches": branches, "chosen": chosen, **boxes.sampling},
    }
    start.click(
        actions.draw,
        inputs_kwargs=inputs,
        outputs=list(screen),
        concurrency_limit=None,
        **hidden,
    )
    stop.click(drawing.stop, None, None, queue=False, **hidden)
    stage.click(actions.cut, None, rows, queue=False, trigger_mode="always_last", **hidden)
    rows.change(lambda rows: gr.update(cut=rows), rows, stage, queue=False, **hidden)
    # it stands in the tree then, and there is room for another
    given.upload(actions.take, [given, boxes.model, branches], list(screen), **hidden).then(
        None, None, given, js="() => null", **hidden
    )
    grown.click(actions.choose, branches, list(screen), **hidden)
    # in the order of the API, at whose end new ones come
    whole: dict[str, Any] = {
        "picture": given,
        "rows": Whole(grid // 2, precision=0, visible=False, label="Rows kept"),
        "label": boxes.label,
        **{name: boxes.sampling[name] for name in ("cfg_scale", "temperature")},
        **{"seed": boxes.seed, **boxes.sampling, "model": boxes.model},
    }
    gr.Button(visible=False).click(
        Completion(models, drawing.sessions, picture).complete,
        inputs_kwargs=whole,
        outputs=[picture, progress],
        api_name="complete",
        concurrency_limit=None,
        show_progress="hidden",
    )
    return actions
