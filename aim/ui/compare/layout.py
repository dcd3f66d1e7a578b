"""The Compare tab: what a setting does, and what lies between two classes."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr

from aim.compare import AXES, MOST
from aim.ui.assets import text
from aim.ui.compare.axes import examples
from aim.ui.compare.handlers import CompareActions, CompareScreen
from aim.ui.models import Models, class_choices, first_class
from aim.ui.picker.picker import Picker
from aim.ui.settings.handlers import Boxes
from aim.ui.stage.updates import status
from aim.ui.stage.widgets import Choice, Range, Status

SECOND_CLASS = 323  # monarch, where the model knows it


def compare_tab(models: Models, boxes: Boxes) -> CompareActions:
    """Lay out the tab inside the current ``gr.Tab`` and connect it to the boxes of the settings,
    which hold what is the same in all pictures. Returns its handlers.
    """
    pipe = models.get(models.default)
    axes, values = [(title.capitalize(), name) for name, title in AXES.items()], examples(pipe)
    with gr.Tab("Sweep"):
        gr.Markdown(
            "Two settings, every combination; all else as set, with the seed shown.",
            elem_classes="aim-note",
        )
        across, across_values = _axis("across", "cfg_scale", "Left to right.", axes, values)
        down, down_values = _axis("down", "temperature", "From top to bottom.", axes, values)
        start = gr.Button("Draw the grid", variant="primary", elem_id="sweep")
    with gr.Tab("Blend"):
        gr.Markdown(
            "From the class of the settings to another: the vectors that stand for them are mixed.",
            elem_classes="aim-note",
        )
        with gr.Group():
            second = Picker(
                class_choices(pipe),
                first_class(pipe, SECOND_CLASS),
                label="To",
                elem_id="blend-second",
            )
        steps = Range(
            2,
            MOST,
            5,
            step=1,
            label="Pictures",
            info="Both classes included.",
            elem_id="blend-steps",
        )
        mix = gr.Button("Draw the way", variant="primary", elem_id="blend")
    picture = gr.Image(
        format="png", type="filepath", label="Comparison", show_label=False,
        interactive=False, buttons=["fullscreen"],
        elem_id="grid",
        alt_text="Pictures side by side, their settings written above and beside them",
    )  # fmt: skip
    progress = Status(
        status("idle", "Choose what to vary, and press Draw"),
        label="Progress",
        elem_id="compare-progress",
    )
    with gr.Row():
        png = gr.DownloadButton(
            "PNG", interactive=False, elem_id="compare-png", size="md", min_width=80
        )
        stop = gr.Button("Stop", interactive=False, elem_id="compare-stop", size="md", min_width=80)
    actions = CompareActions(models, CompareScreen(picture, progress, png, (start, mix), stop))
    outputs = [picture, progress, png, start, mix, stop]
    hidden: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None}
    same = {"seed": boxes.seed, **boxes.sampling, "model": boxes.model}
    start.click(
        actions.sweep,
        inputs_kwargs={
            **{"label": boxes.label, "across": across, "across_values": across_values},
            **{"down": down, "down_values": down_values, **same},
        },
        outputs=outputs,
        api_name="sweep",
        **hidden,
    )
    mix.click(
        actions.blend,
        inputs_kwargs={"first": boxes.label, "second": second, "steps": steps, **same},
        outputs=outputs,
        api_name="blend",
        **hidden,
    )
    picture.change(
        lambda path: gr.update(interactive=path is not None), png, png,
        queue=False, show_progress="hidden", api_visibility="private",
    )  # fmt: skip
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    for axis, box in ((across, across_values), (down, down_values)):
        script = text("compare/axes.js").replace("SIDE", str(axis.elem_id))
        script = script.replace("FIRST", json.dumps(axis.value))
        script = script.replace("EXAMPLES", json.dumps(values))
        axis.change(None, [axis, box], box, js=script, **quiet)
    boxes.current.change(  # another model may know other classes
        lambda name: gr.update(choices=class_choices(models.get(name))),
        boxes.current, second, **quiet
    )  # fmt: skip
    stop.click(
        actions.stop, None, None, queue=False, api_name="stop_compare", show_progress="hidden"
    )
    return actions


def _axis(
    side: str, name: str, info: str, axes: list[tuple[str, str]], values: dict[str, str]
) -> tuple[Choice, gr.Textbox]:
    """A row with a choice of what changes along a side of the grid, at first the setting ``name``,
    and its values.
    """
    with gr.Row():
        setting = Choice(
            axes, value=name, label=side.capitalize(), info=info,
            filterable=False, elem_id=side, min_width=100
        )  # fmt: skip
        its = gr.Textbox(
            values[name], label="Its values", info=f"Up to {MOST}, with commas.",
            elem_id=f"{side}-values", min_width=140
        )  # fmt: skip
    return setting, its
