"""The column beside the tabs: class, seed, sampling, model, and ways to get them back."""

from __future__ import annotations

from typing import Any

import gradio as gr

from aim.ui.assets import text
from aim.ui.models import Models, class_choices, first_class
from aim.ui.picker.picker import Picker
from aim.ui.settings.chips import Chips
from aim.ui.settings.handlers import Boxes, SettingsActions, describe
from aim.ui.settings.presets import PRESETS, preset_values
from aim.ui.settings.recall import COUNTS
from aim.ui.stage.updates import status
from aim.ui.stage.widgets import Choice, Pick, Status, Whole, sampling_boxes


def settings_column(models: Models, offered: list[dict[str, Any]]) -> tuple[Boxes, SettingsActions]:
    """Lay the column out inside the current row and connect it; ``offered`` are the pictures to
    click. Returns its boxes, of which ``pictures`` waits to be rendered, and its handlers.
    """
    pipe = models.get(models.default)
    with gr.Column(scale=4, min_width=300, elem_classes="aim-controls"):
        with gr.Group(elem_classes="aim-first"):
            label = Picker(class_choices(pipe), first_class(pipe), elem_id="class")
            dice = gr.Button("Random class", size="sm", elem_id="random-class")
        chips = Chips(offered, elem_id="chips", elem_classes=["aim-first", "aim-flush"])
        with gr.Group(), gr.Row():
            seed = Whole(0, precision=0, label="Seed", elem_id="seed", min_width=120)
            random_seed = gr.Checkbox(
                True, label="Random", info="A new seed each time.", elem_id="random-seed",
                min_width=120,
            )  # fmt: skip
        with gr.Accordion("Sampling", open=True):
            preset = Choice(
                list(PRESETS),
                value=None,
                label="Preset",
                info="Sets all below.",
                filterable=False,
                elem_id="preset",
            )
            sampling = sampling_boxes(pipe.sampling, more=True)
        with gr.Group():
            model = Choice(
                models.choices,
                value=models.default,
                label="Model",
                filterable=False,
                elem_id="model",
            )
            told = Status(status("idle", ""), label="Settings", elem_id="told")
        note = gr.Markdown(describe(pipe), elem_classes="aim-note", elem_id="note")
        share = gr.Button("Copy link to these settings", size="sm", elem_id="share")
        link = gr.Textbox(
            label="Link", visible="hidden", interactive=False, lines=3, elem_id="link"
        )
        dropped = gr.File(
            label="Restore: a PNG that was made here", type="filepath", file_types=[".png"],
            elem_id="restore", height=140,
        )  # fmt: skip
    count = Pick(
        list(COUNTS), value=1, label="Pictures", info="Drawn together.", elem_id="count",
        min_width=230,        render=False,
    )  # fmt: skip
    boxes = Boxes(
        model, label, sampling, seed, random_seed, count, note, gr.State(models.default), told
    )
    actions = SettingsActions(models, boxes)

    hidden: dict[str, Any] = {"show_progress": "hidden"}
    private: dict[str, Any] = {**hidden, "api_visibility": "private"}
    # who types a seed wants that one
    seed.input(None, None, random_seed, js="() => false", **private)
    dice.click(actions.random_class, model, label, api_name="random_class", **hidden)
    chips.click(actions.pick, None, label, queue=False, **private).then(
        None, None, None, js="() => window.aim.draw()", **private
    )
    model.select(actions.switch, [model, label, boxes.current], boxes.outputs, **private)
    preset.input(
        lambda name, model: preset_values(name, models.get(model)),
        [preset, model],
        list(sampling.values()),
        **private,
    )
    dropped.upload(actions.reread, [dropped, boxes.current], boxes.outputs, **private).then(
        None, None, dropped, js="() => null", **private
    )
    share.click(
        actions.linked, [model, label, seed, count, *sampling.values()], link, **private
    ).then(None, link, link, js=text("settings/link.js"), **private).then(
        lambda: gr.update(visible=True), None, link, **private
    )
    return boxes, actions
