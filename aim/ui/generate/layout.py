"""The Generate tab: pick a class, watch it being drawn, take the picture home."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gradio as gr
from gradio.components import Component
from gradio.events import api

from aim.config import INDEX
from aim.ui.assets import text
from aim.ui.drawings import Drawings
from aim.ui.generate.chips import Chips
from aim.ui.generate.handlers import MOVIES, NO_MOVIE, Actions, Screen
from aim.ui.generate.presets import PRESETS, preset_values
from aim.ui.generate.recall import COUNTS
from aim.ui.generate.recorded import opening
from aim.ui.generate.settings import Boxes, SettingsActions, describe
from aim.ui.generate.visit import VisitScreen, collect, query
from aim.ui.models import Models, class_choices, first_class
from aim.ui.stage.stage import Stage
from aim.ui.stage.updates import Update, status
from aim.ui.stage.widgets import (
    Choice,
    Pick,
    Status,
    Whole,
    drawn,
    sampling_boxes,
    seed_and_random,
)

PREVIEW_EVERY = 8


class Opening(NamedTuple):
    """What is done when the page is opened."""

    handler: Callable[[gr.Request], Iterator[Update]]
    outputs: list[Component]


def generate_tab(models: Models, drawings: Drawings) -> tuple[Actions, Opening]:
    """Lay out the tab inside the current ``gr.Tab`` and connect it. Returns its handlers, and one
    for a page that opens.
    """
    pipe = models.get(models.default)
    played, offered = opening(pipe)
    with gr.Row(elem_classes="aim-columns"):
        with gr.Column(scale=4, min_width=300, elem_classes="aim-controls"):
            with gr.Group(elem_classes="aim-first"):
                label = Choice(
                    class_choices(pipe),
                    value=first_class(pipe),
                    label="Class",
                    info="Type to search.",
                    elem_id="class",
                )
                dice = gr.Button("Random class", size="sm", elem_id="random-class")
            with gr.Row(elem_classes="aim-first"):
                start = gr.Button("Generate", variant="primary", elem_id="generate", min_width=120)
                stop = gr.Button("Stop", interactive=False, elem_id="stop", min_width=80)
            chips = Chips(offered, elem_id="chips", elem_classes=["aim-first", "aim-flush"])
            with gr.Group():
                with gr.Row():
                    seed, random_seed = seed_and_random(random=True)
                reuse = gr.Button(
                    "Reuse last seed", size="sm", interactive=False, elem_id="reuse-seed"
                )
            count = Pick(
                list(COUNTS), value=1, label="Pictures", info="Drawn together.", elem_id="count"
            )
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
            with gr.Accordion("Model", open=True):
                model = Choice(
                    models.choices,
                    value=models.default,
                    label="Model",
                    filterable=False,
                    elem_id="model",
                )
        with gr.Column(scale=5, min_width=300, elem_classes="aim-result"):
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
            note = gr.Markdown(
                describe(pipe), elem_classes=["aim-narrow", "aim-note"], elem_id="note"
            )
            with gr.Accordion(
                "Parameters (also inside the PNG)", open=False, elem_classes="aim-narrow"
            ):
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
                share = gr.Button(
                    "Copy link to these settings", size="sm", elem_id="share", min_width=120
                )
            names = gr.Textbox(visible="hidden", elem_id="names")
            link = gr.Textbox(
                label="Link",
                visible="hidden",
                interactive=False,
                lines=3,
                elem_id="link",
                elem_classes="aim-narrow",
            )
            dropped = gr.File(
                label="Restore: a PNG that was made here", type="filepath", file_types=[".png"],
                elem_id="restore", height=140,
                elem_classes="aim-narrow",
            )  # fmt: skip

    made, pictures, current = gr.State(None), gr.State([]), gr.State(models.default)
    screen = Screen(picture, progress, png, gif, parameters, start, stop, made, stage)
    actions = Actions(models, screen, drawings)
    # by name; in the order of the API, at whose end new ones come
    inputs: dict[str, Any] = {
        "label": label,
        "model": model,
        **{name: sampling[name] for name in ("cfg_scale", "temperature", "top_k", "top_p")},
        "seed": seed,
        "random_seed": random_seed,
        "preview_every": preview_every,
        "count": count,
        "movie": movie,
        **sampling,
    }
    boxes = Boxes(
        model,
        label,
        sampling,
        seed,
        random_seed,
        count,
        note,
        current,
        progress,
    )
    taking = SettingsActions(models, boxes)

    def linked(*values: Any) -> str:
        return query(**dict(zip(("class", "model", *INDEX, "seed", "count"), values, strict=True)))

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
    visit = VisitScreen(gallery, pictures, pack, names, seed)
    drawing.success(
        lambda made, pictures: collect(visit, drawings, made, pictures),
        [made, pictures],
        list(visit),
        **private,
    )
    pack.click(None, names, None, js=text("generate/zip.js"), **private)
    stop.click(actions.stop, None, None, api_name="stop", queue=False, **hidden)
    dice.click(actions.random_class, model, label, api_name="random_class", **hidden)
    chips.click(actions.pick, None, label, queue=False, **private).then(
        None, None, None, js="() => document.getElementById('generate').click()", **private
    )
    model.select(taking.switch, [model, label, current], boxes.outputs, **private)
    parameters.change(
        lambda value: gr.update(interactive=value is not None),
        parameters,
        reuse,
        queue=False,
        **private,
    )
    reuse.click(
        lambda value: (value["seed"], False),
        parameters,
        [seed, random_seed],
        queue=False,
        **private,
    )
    preset.input(
        lambda name, model: preset_values(name, models.get(model)),
        [preset, model],
        list(sampling.values()),
        **private,
    )
    gallery.select(taking.chosen, [pictures, current], boxes.outputs, **private)
    dropped.upload(taking.reread, [dropped, current], boxes.outputs, **private)
    share.click(linked, [label, model, *sampling.values(), seed, count], link, **private).then(
        None, link, link, js=text("generate/link.js"), **private
    ).then(lambda: gr.update(visible=True), None, link, **private)
    api(actions.classes, api_name="classes")
    return actions, Opening(taking.opened, boxes.outputs)
